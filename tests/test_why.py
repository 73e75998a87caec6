"""Laws of `why`: whatever broke an update is found, and where: its layer, gate, step and example."""

import dataclasses
import importlib
import itertools
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _network import matrices, rnn
from _processes import Process
from _refusals import refusal
from _training import having

import seqdyn as sd
from analysis import gradient_flow
from seqdyn.learn import model, train
from seqdyn.measure.broken import first_break
from seqdyn.numbers import Numbers
from seqdyn.runs import checkpoint
from seqdyn.runs import why as looking

X64 = False
T, B, H = 6, 4, 3
LINEAR = sd.Spec(steps=T, batch=B, hidden=(H, H), holdout=4, activation="identity")
LSTM = sd.Spec(steps=T, batch=B, hidden=(H,), holdout=4, cell="lstm", bidirectional=True)
GATES = model.layers(having(LSTM, Numbers().arrays()))[0].gates
HUGE = np.float32(3e38)


def began(spec, seed):
    numbers = Numbers(seed=seed, lr=0.1).arrays()
    state = train.init(having(spec, numbers))
    batch = train.training_batch(having(spec, numbers), None, seed)
    ones = batch._replace(xs=jnp.ones_like(batch.xs), ys=jnp.zeros_like(batch.ys))
    return numbers, state, ones


def with_layer(state, i, **leaves):
    layers = list(state.params.layers)
    layers[i] = layers[i]._replace(**leaves)
    return state._replace(params=state.params._replace(layers=tuple(layers)))


def plain(state):
    """Linear layers that pass on the sum of what they read: U = 0, W = 1."""
    for i, layer in enumerate(state.params.layers):
        state = with_layer(state, i, w=jnp.ones_like(layer.w), u=jnp.zeros_like(layer.u))
    return state


def in_batch(rng, numbers, state, batch):
    t, e, d = rng.integers((T, B, 2))
    return (
        state,
        batch._replace(xs=batch.xs.at[t, e, d].set(rng.choice([np.nan, np.inf]))),
        dict(what="batch", name="xs", time=t, example=e),
    )


def in_target(rng, numbers, state, batch):
    e = rng.integers(B)
    return state, batch._replace(ys=batch.ys.at[e].set(np.nan)), dict(what="batch", name="ys", time=None, example=e)


def in_parameter(rng, numbers, state, batch):
    i, name = rng.integers(2), rng.choice(["w", "u", "b"])
    leaf = getattr(state.params.layers[i], name)
    bad = leaf.at[tuple(rng.integers(leaf.shape))].set(-np.inf)
    return with_layer(state, i, **{name: bad}), batch, dict(what="parameters", name=f"layers.{i}.{name}", value=-np.inf)


def from_then_on(batch, t, e, size=4.0):
    """0 but in one example from one step on."""
    return batch._replace(xs=jnp.zeros_like(batch.xs).at[t:, e].set(size))


def in_layer(rng, numbers, state, batch):
    """A weight whose product overflows as soon as there is something to read."""
    i, t, e = rng.integers((2, T, B))
    state = plain(state)
    state = with_layer(state, i, w=state.params.layers[i].w.at[0, rng.integers(H)].set(HUGE))
    return state, from_then_on(batch, t, e), dict(what="state", name="h", layer=i, time=t, example=e)


def in_gate(rng, numbers, state, batch):
    """Of an LSTM's direction: where all gates are open, one reads ∞ from its input and a step later −∞ from h."""
    i, t, e, gate = rng.integers((2, T - 1, B, 4))
    layer = state.params.layers[i]
    w, u = jnp.full_like(layer.w, 100), jnp.zeros_like(layer.u)
    state = with_layer(state, i, w=w.at[:, gate * H].set(HUGE), u=u.at[:, gate * H].set(-HUGE))
    batch = from_then_on(batch, t, e)
    if i:  # it reads from the end
        batch = batch._replace(xs=batch.xs[::-1])
    time = T - 2 - t if i else t + 1
    return state, batch, dict(what="state", name=GATES[gate], layer=i, time=time, example=e)


def in_recurrence(rng, numbers, state, batch):
    """h_t = g h_{t−1} + x_t, on and on: Inf where the oracle's float32 is."""
    state, g = plain(state), np.float32(10.0 ** rng.integers(10, 30))
    state = with_layer(state, 0, u=g * jnp.eye(H))
    with np.errstate(over="ignore"):
        hs = np.asarray([*itertools.accumulate(range(T), lambda h, _: h * g + np.float32(2), initial=np.float32(0))])
    time = int(np.isinf(hs).argmax()) - 1  # h_1 is that of step 0
    return state, batch, dict(what="state", name="h", layer=0, time=time, example=0, value=np.inf)


def in_prediction(rng, numbers, state, batch):
    e = rng.integers(B)
    readout = state.params.readout
    state = plain(state)
    params = state.params._replace(readout=readout._replace(w=jnp.full_like(readout.w, HUGE)))
    return state._replace(params=params), from_then_on(batch, 0, e), dict(what="predictions", example=e)


def in_loss(rng, numbers, state, batch):
    e = rng.integers(B)
    return state, batch._replace(ys=batch.ys.at[e].set(1e30)), dict(what="loss", example=e, value=np.inf)


def in_moment(rng, numbers, state, batch):
    """g² is no float where g, and the loss, are."""
    return plain(state), batch._replace(ys=batch.ys.at[rng.integers(B)].set(1.5e19)), dict(what="moments")


def in_norm(rng, numbers, state, batch):
    return state, batch, dict(what="norm", value=np.inf)


def in_update(rng, numbers, state, batch):
    return state, batch, dict(what="update")


def in_adjoint(rng, numbers, state, batch):
    """λ_{t−1} = 10^k λ_t, while all states are 0."""
    e, k = rng.integers(B), int(rng.integers(9, 30))
    state = plain(state)
    state = with_layer(state, 1, u=np.float32(10.0**k) * jnp.eye(H))
    last = np.log2(np.abs(2 * np.asarray(state.params.readout.w, np.float64) / B).max())  # of (0 − 1)²
    lag = next(lag for lag in range(T) if last + k * lag * np.log2(10) > 128)
    batch = batch._replace(xs=jnp.zeros_like(batch.xs), ys=batch.ys.at[e].set(1.0))
    return state, batch, dict(what="adjoint", layer=1, time=T - 1 - lag, example=e)


RATES = {in_update: np.inf, in_norm: HUGE}
FAULTS = {
    "linear": (
        LINEAR,
        in_batch,
        in_target,
        in_parameter,
        in_layer,
        in_recurrence,
        in_prediction,
        in_loss,
        in_moment,
        in_adjoint,
        in_update,
        in_norm,
    ),
    "lstm": (LSTM, in_batch, in_parameter, in_gate, in_gate, in_loss),
}


@pytest.mark.parametrize("name", ["linear", pytest.param("lstm", marks=pytest.mark.slow)])
def test_every_fault_is_found_where_it_was_put(name):
    """A hundred of them, at random layers, gates, steps and examples."""
    spec, *faults = FAULTS[name]
    for i in range(100 * len(faults) // sum(len(of) - 1 for of in FAULTS.values()) + 1):
        rng, fault = np.random.default_rng(i), faults[i % len(faults)]
        numbers, state, batch = began(spec, i)
        assert first_break(having(spec, numbers), state, batch) is None
        state, batch, put = fault(rng, numbers, state, batch)
        numbers = dataclasses.replace(numbers, lr=jnp.float32(RATES.get(fault, 0.1)))
        found = first_break(having(spec, numbers), state, batch)
        assert {key: getattr(found, key) for key in put} == put, f"{fault.__name__}: {found}"


# --- in a run directory -----------------------------------------------------------------------------------------


@sd.part
class Poisoned:
    """Descent that makes a bias enormous in one update."""

    when: sd.Number = sd.number(0, whole=True)

    def build(self):
        def update(grads, done, params=None):
            moved = jax.tree.map(lambda g: -0.01 * g, grads)
            layer = moved.layers[0]
            b = layer.b.at[0].add(jnp.where(done == self.when, HUGE, 0))
            return moved._replace(layers=(layer._replace(b=b),)), done + 1

        return optax.GradientTransformation(lambda params: jnp.int32(0), update)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    spec = sd.Spec(steps=T, batch=B, hidden=(H,), holdout=4, activation="relu", optimizer=Poisoned())
    runs = sd.grid(spec, seeds=1, when=[0, 3, 6, 99])
    experiment = sd.Experiment("poisoned", runs, updates=8, chunk=4, probe_every=4)
    return sd.run(experiment, tmp_path_factory.mktemp("why") / "out", verify=False)


@pytest.mark.slow
def test_the_update_that_broke_is_made_again_and_those_before_it_are_shown(poisoned):
    for run, when in enumerate((0, 3, 6)):
        found = sd.why(poisoned, run)
        assert (found.update, found.broke.what, found.run) == (when + 1, "loss", run)
        assert found.before.index.tolist() == list(range(when + 2))
        np.testing.assert_array_equal(found.before.loss, sd.load(poisoned).loss.isel(run=run).values[: when + 2])
        assert found.shown == "made again from the state after 0 updates"
    assert sd.why(poisoned, 3) is None
    assert "run is 4" in refusal(sd.why, poisoned, 4)
    assert gradient_flow.broke(poisoned)[2] == (
        "Run 2 (rnn relu) broke at update 7: the loss is inf, of predictions that are finite at example 0."
    )


@pytest.mark.slow
def test_an_adjoint_that_is_nan_is_not_told_as_a_small_one(tmp_path):
    spec = sd.Spec(steps=12, batch=4, hidden=(5,), holdout=8, activation="relu")
    experiment = sd.Experiment("overflow", sd.grid(spec, seeds=1, gain=1e6), updates=2, chunk=2, probes=())
    found = sd.why(sd.run(experiment, tmp_path / "out", verify=False), 0)
    assert (found.update, found.broke.what, found.broke.name) == (0, "state", "h")
    broken = np.isnan(found.closely["example_adjoint_norm"].values)
    assert broken.any() and np.isnan(found.closely["example_adjoint_log_norm"].values[broken]).all()
    assert found.before["adjoint_log2"].tolist() == [np.inf]


@pytest.mark.slow
def test_the_updates_before_are_seen_closely_where_a_state_is_near_and_as_recorded_where_none_is(poisoned, monkeypatch):
    found = sd.why(poisoned, 1)
    seen = found.closely
    h = np.sqrt(np.square(seen["h"].values.astype(np.float64)).sum(-1))
    np.testing.assert_allclose(found.before["h_largest"], h.reshape(len(h), -1).max(1))
    assert found.before["h_largest"][4] > 1e30 > found.before["h_largest"][3]  # the update that broke, and that before
    assert seen["xs"].dims == ("update", "time", "example", "xs_axis_2") and seen["ys"].sizes["example"] == B
    each = seen["example_adjoint_log_norm"].values.reshape(len(h), -1)
    np.testing.assert_array_equal(found.before["adjoint_log2"][:4], each[:4].max(axis=1))
    assert list(sd.why(poisoned, 2, before=2).before.index) == [5, 6, 7]
    assert sd.why(poisoned, 1, before=0).shown == "from the records"
    monkeypatch.setattr(looking, "REACH", 4)
    far = sd.why(poisoned, 2, before=2)
    assert far.closely is None and far.shown.startswith(
        "from the records, as the nearest state is that after 0 updates"
    )
    np.testing.assert_array_equal(far.before.loss, sd.load(poisoned).loss.isel(run=2).values[5:8])
    monkeypatch.setattr(looking, "REACH", 1000)

    def elsewhere(*given):
        raise RuntimeError("update 1 of run 1, made again here, has another loss than was recorded.")

    monkeypatch.setattr(looking, "replay", elsewhere)
    assert "has another loss than was recorded" in sd.why(poisoned, 1).shown


@pytest.mark.slow
def test_what_was_recorded_after_the_checkpoint_is_made_again_on_the_data(tmp_path):
    """Of a run that is still training, or was killed."""
    xs = np.random.default_rng(0).normal(size=(8, T, 2)).astype(np.float32)
    data = {name: (xs, [T] * 8, np.arange(8) % 2) for name in ("train", "validation")}
    spec = sd.Spec("labelled", T, B, hidden=(H,), features=2, classes=0, activation="relu", optimizer=Poisoned())
    experiment = sd.Experiment("late", sd.grid(spec, when=6), updates=8, chunk=2, probe_every=8, probes=())
    out = sd.run(experiment, tmp_path / "out", data, verify=False, checkpoint_seconds=0.0)
    whole = sd.why(out, 0, data)
    assert whole.update == 7 and checkpoint.steps(checkpoint.of_tile(out, 0)) == [8, 6]
    shutil.rmtree(checkpoint.of_tile(out, 0) / "8")
    assert sd.why(out, 0, data).broke == whole.broke
    assert "needs a dict of its splits" in refusal(sd.why, out, 0)


@pytest.mark.slow
def test_the_module_of_the_command_line_is_the_function_where_it_takes_its_place(poisoned):
    importlib.import_module("seqdyn.why")
    assert sd.why(poisoned, 0).update == 1


@sd.part
class Subsampled:
    """A scan over every second step, whose last two states a second scan reads."""

    def init(self, key):
        return {"first": matrices(key, 2), "second": matrices(key, H), "readout": jnp.ones(H)}

    def loss(self, params, batch, key):
        hs = rnn(params["first"], jnp.zeros((batch.xs.shape[1], H)), batch.xs[::2], "first")
        hs = rnn(params["second"], jnp.zeros_like(hs[0]), hs[-2:], "second")
        return batch.mean((hs[-1] @ params["readout"] - batch.ys) ** 2)


@pytest.mark.slow
def test_scans_of_other_lengths_than_the_batch_are_made_again_and_what_they_lack_is_not_large(tmp_path):
    spec = sd.Spec(steps=8, batch=3, holdout=6, network=Subsampled(), optimizer="sgd")
    runs = sd.grid(spec, seeds=1, lr=1e30)
    e = sd.Experiment("scans", runs, updates=4, chunk=2, probe_every=2, probes=())
    out = sd.run(e, tmp_path / "out", verify=False)
    seen, why = sd.replay(out, 0, 0, 1), sd.why(out, 0)
    assert seen["example_adjoint_norm"].sizes["time"] == 4 and seen["xs"].shape == (1, 8, 3, 2)
    assert why.update == 1
    logs = seen["example_adjoint_log_norm"].values[0]
    assert np.isnan(logs[1, :2]).all()
    assert why.before["adjoint_log2"][0] == np.nanmax(logs)


@pytest.mark.slow
def test_a_run_is_looked_into_from_the_command_line(poisoned):
    code = f"""if True:
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_why, runpy
        sys.argv = ["why", {str(poisoned)!r}]
        runpy.run_module("seqdyn.why", run_name="__main__")
    """
    lines = Process(["-c", code]).finish().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"run {run} (rnn relu) broke at update {when}" for run, when in enumerate((1, 4, 7))
    ]
