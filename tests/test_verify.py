"""Laws of `seqdyn.learn.verify`: two gradients that are both 0 do not agree, they are silent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refusals import refusal

import seqdyn as sd
from seqdyn.data.text import Examples
from seqdyn.learn import verify
from seqdyn.learn.config import Spec
from seqdyn.learn.verify import TOLERANCE, gradient_error

X64 = False
SHAPE = dict(steps=6, hidden=(3,), holdout=4)


@pytest.mark.slow
def test_a_network_whose_inputs_have_no_effect_is_named():
    spec = Spec(normalise="batch", batch=1, **SHAPE)
    sentence = refusal(gradient_error, spec, None)
    assert "layer0/w" in sentence and "layer0/u" in sentence and "exactly 0" in sentence and "readout" not in sentence


@pytest.mark.parametrize(
    "spec, numbers",
    [
        pytest.param(Spec(batch=2, **SHAPE), dict(readout_gain=0.0), marks=pytest.mark.slow),
        (Spec(batch=2, **SHAPE), dict(gain=0.0, input_gain=0.0)),
        (Spec(batch=1, activation="relu", steps=2, hidden=(1,), holdout=4), dict(seed=0)),
        pytest.param(
            Spec(batch=2, dropout="words", task="labelled", vocabulary=5, **SHAPE),
            dict(dropout=0.999),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["readout 0", "weights 0", "one unit", "all dropped"],
)
def test_a_gradient_of_0_that_can_end_is_no_fault(spec, numbers):
    ids = Examples(np.ones((4, 6), np.int32), np.full(4, 6, np.int32), np.arange(4, dtype=np.int32) % 2)
    data = {"train": ids, "validation": ids} if spec.vocabulary else None
    assert gradient_error(spec.having(**numbers).arrays(), data) < TOLERANCE


@pytest.mark.slow
def test_a_first_batch_of_zeros_and_sequences_of_one_step_are_no_fault():
    zeros = Examples(np.zeros((4, 1, 2), np.float32), np.full(4, 1, np.int32), np.arange(4, dtype=np.int32) % 2)
    spec = Spec("labelled", steps=1, batch=4, features=2, hidden=(3,))
    assert gradient_error(spec, {"train": zeros, "validation": zeros}) < TOLERANCE
    assert jnp.isfinite(gradient_error(spec, {"train": zeros._replace(xs=zeros.xs + 1), "validation": zeros}))


def test_a_run_that_begins_diverged_is_data_and_a_gradient_that_is_nan_alone_is_wrong(monkeypatch):
    """Labels of NaN: autodiff's gradient is NaN, too."""
    nan = Examples(np.ones((4, 2, 2), np.float32), np.full(4, 2, np.int32), np.full(4, np.nan, np.float32))
    spec = Spec("labelled", steps=2, batch=4, features=2, classes=0, hidden=(3,))
    data = {name: nan for name in ("train", "validation")}
    assert np.isnan(gradient_error(spec, data))
    right = data | {"train": nan._replace(ys=np.ones(4, np.float32))}
    assert gradient_error(spec, right) < TOLERANCE
    plainly = verify.model.groups
    calls = []

    def ours_is_nan(tree):
        calls.append(tree)
        return plainly(jax.tree.map(lambda leaf: leaf * jnp.nan, tree) if len(calls) == 1 else tree)

    monkeypatch.setattr(verify.model, "groups", ours_is_nan)
    assert gradient_error(spec, right) == np.inf


@sd.part
class WithNothing:
    """A cell of whose parameters one has no numbers."""

    def build(self, inputs):
        def init(key):
            return {"w": jax.random.normal(key, (inputs, 2)), "none": jnp.zeros((0, 2))}

        return sd.cell(init, lambda p, h, x: jnp.tanh(x @ p["w"] + h), lambda batch: jnp.zeros((*batch, 2)))


def test_no_gradient_is_asked_of_an_array_without_numbers():
    assert gradient_error(Spec(steps=3, batch=2, holdout=2, layers=(WithNothing(),)), None) < TOLERANCE


@sd.part
class WithoutLabels:
    """Every label is NaN."""

    def build(self):
        def draw(key, batch):
            return jnp.ones((3, batch, 1)), jnp.full(batch, jnp.nan)

        return sd.task(draw, loss=lambda prediction, y: (prediction[..., 0] - y) ** 2, inputs=1, outputs=1)


@pytest.mark.slow
def test_a_run_that_begins_diverged_ends_and_says_so(tmp_path):
    spec = Spec(task=WithoutLabels(), batch=2, holdout=2, hidden=(3,))
    ds = sd.load(sd.run(sd.Experiment("nan", spec, updates=2, chunk=1, probe_every=1), tmp_path / "out"))
    assert not ds.finite.any() and ds.recorded.all()
