"""Laws of `seqdyn.learn.verify`: two gradients that are both 0 do not agree, they are silent."""

import jax.numpy as jnp
import numpy as np
import pytest
from _refusals import refusal

from seqdyn.data.text import Examples
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
