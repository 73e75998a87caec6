"""Laws of `seqdyn.nets.normalised`: what is normalised has mean 0 and variance γ², whatever the weights' size; its
gradient is autodiff's; and running averages judge an example alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _programs import program
from _training import having

from seqdyn.data.tasks import TASKS
from seqdyn.learn import model, train
from seqdyn.learn.config import Spec
from seqdyn.learn.verify import gradient_error
from seqdyn.nets import cells
from seqdyn.nets.bptt import unroll
from seqdyn.nets.normalised import EPSILON, normalised
from seqdyn.nets.stack import Layer, unroll_autodiff
from seqdyn.numbers import Numbers

X64 = False
MAKE = {"rnn": cells.rnn, "lstm": cells.lstm, "gru": cells.gru, "gru_reset_before": cells.gru_reset_before}
T, B, D, H = 6, 5, 3, 4
every = pytest.mark.parametrize("name", MAKE)


def begun(cell, seed=0):
    """Parameters drawn by NumPy around those that a cell begins with, but for its averages: nothing is compiled."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: 0.6 * rng.standard_normal(leaf.shape), jax.eval_shape(cell.init, jax.random.key(0))
    )
    moments = lambda m: type(m)(np.zeros_like(m.mean), np.ones_like(m.variance))  # noqa: E731
    return params._replace(
        statistics=jax.tree.map(moments, params.statistics, is_leaf=lambda leaf: hasattr(leaf, "variance"))
    )


def made(name, kind, training=True, gain=1.0):
    return normalised(MAKE[name](D, H, dtype=jnp.float64), kind, T, gain, training=training)


def xs(seed=0, b=B):
    return np.random.default_rng(seed).normal(size=(T, b, D))


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


doubly = pytest.mark.usefixtures("double")


@doubly
@pytest.mark.parametrize(
    "name, kind",
    [
        ("rnn", "layer"),
        ("lstm", "layer"),
        ("gru", "layer"),
        ("rnn", "batch_drive"),
        ("gru", "batch_drive"),
        ("rnn", "batch"),
        ("lstm", "batch"),
        ("gru_reset_before", "layer"),
        pytest.param("gru_reset_before", "batch_drive", marks=pytest.mark.slow),
        pytest.param("gru_reset_before", "batch", marks=pytest.mark.slow),
        pytest.param("lstm", "batch_drive", marks=pytest.mark.slow),
        pytest.param("gru", "batch", marks=pytest.mark.slow),
    ],
)
def test_the_gradient_through_a_normalised_cell_is_autodiffs(name, kind):
    cell = made(name, kind)

    def loss(params, xs, by):
        hs, last = by(cell, params, cell.initial_carry((B,)), xs)
        return jnp.sum(jnp.sin(hs)) + jnp.sum(last.h**2)

    both = program(lambda *given: [jax.grad(loss, argnums=(0, 1))(*given, by) for by in (unroll, unroll_autodiff)])
    ours, theirs = both(begun(cell), xs())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9), ours, theirs)


@doubly
@every
def test_a_layer_is_normalised_over_its_units_an_example_does_not_feel_the_others_nor_the_size_of_the_weights(name):
    cell = made(name, "layer")

    @program
    def ran(params, xs):
        large = params._replace(w=100 * params.w, u=100 * params.u)
        of = ((params, xs), (large, xs), (params, xs[:, :1]))
        return [unroll(cell, p, cell.initial_carry(x.shape[1:2]), x)[0] for p, x in of]

    params = begun(cell)
    hs, grown, alone = ran(params._replace(u=10 * params.u), 100 * xs())
    np.testing.assert_allclose(hs, grown, atol=2e-4)  # but for ε
    np.testing.assert_allclose(hs[:, :1], alone, rtol=1e-12)


@doubly
def test_layer_normalisation_of_an_rnn_is_ba_et_als():
    cell = made("rnn", "layer")
    params, h, x = begun(cell), np.random.default_rng(1).normal(size=(B, H)), xs()[0]
    a = x @ params.w + h @ params.u
    a = params.gain_x * (a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + EPSILON) + params.b
    after = program(lambda params, h, x: cells.step(cell, params, cells.Hidden(h), x).h)(params, h, x)
    np.testing.assert_allclose(after, np.tanh(a), rtol=1e-10)


@doubly
def test_batch_normalisation_of_an_lstm_is_cooijmans_et_als():
    cell = made("lstm", "batch")
    params, (h, before), x = begun(cell), np.random.default_rng(1).normal(size=(2, B, H)), xs()[0]

    def bn(x, gain):
        return gain * (x - x.mean(0)) / np.sqrt(x.var(0) + EPSILON)

    z = bn(x @ params.w, params.gain_x) + bn(h @ params.u, params.gain_h) + params.b
    i, f, o, g = np.split(z, 4, axis=1)
    s = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    c = s(f) * before + s(i) * np.tanh(g)
    after = program(lambda params, *given: cells.step(cell, params, cells.Memory(*given[:2]), given[2]))(
        params, before, h, x
    )
    np.testing.assert_allclose(after.c, c, rtol=1e-10)
    np.testing.assert_allclose(after.h, s(o) * np.tanh(bn(c, params.gain_c) + params.shift_c), rtol=1e-10)


@doubly
@pytest.mark.parametrize("kind, axis", [("layer", 1), ("batch", 0)])
def test_a_gru_that_resets_before_the_product_is_normalised_there(kind, axis):
    cell = made("gru_reset_before", kind)
    params, h, x = begun(cell), np.random.default_rng(1).normal(size=(B, H)), xs()[0]

    def norm(x, gain):
        return gain * (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + EPSILON)

    def both(x, gain):  # a layer's r and z share mean and variance
        return np.concatenate([norm(x[:, : 2 * H], gain[: 2 * H]), norm(x[:, 2 * H :], gain[2 * H :])], axis=1)

    gates = slice(0, 2 * H)
    drive = both(x @ params.w, params.gain_x) + params.b
    r, z = np.split(1 / (1 + np.exp(-drive[:, gates] - norm(h @ params.u[:, gates], params.gain_h[gates]))), 2, axis=1)
    n = np.tanh(drive[:, 2 * H :] + norm((r * h) @ params.u[:, 2 * H :], params.gain_h[2 * H :]))
    after = program(lambda params, h, x: cells.step(cell, params, cells.Hidden(h), x).h)(params, h, x)
    np.testing.assert_allclose(after, (1 - z) * n + z * h, rtol=1e-10)


@doubly
@every
def test_the_drive_is_normalised_over_the_batch_and_all_steps(name):
    cell = made(name, "batch_drive")
    params = begun(cell)
    z = program(cell.input_projection)(params, 50 * xs() + 3).reshape(T * B, -1)
    np.testing.assert_allclose(z.mean(0), params.b, atol=1e-10)
    np.testing.assert_allclose(z.std(0), np.abs(params.gain_x), rtol=1e-4)


def test_a_cell_begins_with_the_gain_of_its_paper():
    """γ is 0.1 within a recurrence whose batch is normalised (Cooijmans et al. 2017, §4), else 1, times what is set."""
    kinds = {"layer": 1.0, "batch_drive": 1.0, "batch": 0.1}
    specs = {k: having(Spec(hidden=(3,), normalise=k), Numbers(norm_gain=0.5)) for k in kinds}
    found = program(lambda: {k: model.init(spec, jax.random.key(0)).layers[0].gain_x for k, spec in specs.items()})()
    for kind, gamma in kinds.items():
        np.testing.assert_allclose(found[kind], 0.5 * gamma, rtol=1e-6)


@doubly
@every
@pytest.mark.parametrize("kind", ["batch_drive", "batch"])
def test_averages_that_have_settled_judge_a_batch_as_its_own_statistics_do(name, kind):
    """And then an example alone gives what it gave among the others, at any batch size."""
    learning, judging = made(name, kind), made(name, kind, training=False)

    @program
    def judged(fresh, xs):
        def observe(_, params):
            hs, _ = unroll(learning, params, learning.initial_carry((B,)), xs)
            seen = Layer(learning, params, learning.initial_carry((B,)), xs, None, hs)
            return params._replace(statistics=learning.update_batch_stats(seen))

        params = jax.lax.fori_loop(0, 300, observe, fresh)
        among, _ = unroll(learning, params, learning.initial_carry((B,)), xs)
        apart, anew = (unroll(judging, p, judging.initial_carry((B,)), xs)[0] for p in (params, fresh))
        alone, _ = unroll(judging, params, judging.initial_carry((1,)), xs[:, 2:3])
        return among, apart, alone, anew

    among, apart, alone, anew = judged(begun(learning), xs())
    np.testing.assert_allclose(apart, among, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(alone, apart[:, 2:3], rtol=1e-12)
    assert np.abs(anew - among).max() > 1e-3  # the averages matter


RUNS = [("batch", "rnn")]
SLOW = [
    pytest.param(*pair, marks=pytest.mark.slow)
    for pair in (("batch", "lstm"), ("batch_drive", "lstm"), ("layer", "lstm"), ("batch", "gru_reset_before"))
]


@pytest.mark.parametrize("kind, cell", RUNS + SLOW)
def test_a_run_trains_keeps_its_averages_and_is_judged_with_them(kind, cell):
    spec = Spec(steps=8, batch=16, hidden=(6,), cell=cell, normalise=kind, holdout=64)
    h = Numbers(lr=1e-2).arrays()
    single = dataclasses.replace(spec, batch=1)

    @program
    def ran(h):
        start = train.init(having(spec, h))
        state, metrics = train.chunk(having(spec, h), start, None, 60)
        one = TASKS[spec.task](single).batch(None, "test", jax.random.key(0))
        alone = model.predict(having(single, h), state.params, one)
        return start.params, state, metrics["loss"], alone, train.evaluate(having(spec, h), state, None)["test_loss"]

    with jax.numpy_dtype_promotion("standard"):
        first, state, losses, alone, judged = ran(h)
    assert bool(state.alive) and np.isfinite(losses).all()
    assert losses[-10:].mean() < losses[:5].mean()
    kept = state.params.layers[0].statistics
    assert (kept is None) == (kind == "layer")
    if kept is not None:
        assert np.abs(kept.x.mean - first.layers[0].statistics.x.mean).max() > 1e-2
        assert not any("statistics" in name for name in model.groups(state.params))
    assert gradient_error(having(spec, h), None) < 1e-5
    assert np.isfinite(alone).all()
    assert judged < 2 * losses[-10:].mean() + 0.1
