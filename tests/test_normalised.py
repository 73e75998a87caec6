"""Laws of `seqdyn.nets.normalised`: what is normalised has mean 0 and variance γ², whatever the weights' size; its
gradient is autodiff's; and running averages judge an example alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn.backend import compiled
from seqdyn.data.tasks import TASKS
from seqdyn.learn import model, train
from seqdyn.learn.config import Hypers, Spec
from seqdyn.learn.verify import gradient_error
from seqdyn.nets import cells
from seqdyn.nets.bptt import unroll
from seqdyn.nets.normalised import EPSILON, normalised
from seqdyn.nets.stack import Layer, unroll_autodiff

X64 = False
MAKE = {"rnn": cells.rnn, "lstm": cells.lstm, "gru": cells.gru}
T, B, D, H = 6, 5, 3, 4
every = pytest.mark.parametrize("name", MAKE)


def made(name, kind, training=True, gain=1.0):
    return normalised(MAKE[name](D, H, dtype=jnp.float64), kind, T, gain, training=training)


def xs(seed=0, b=B):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(T, b, D)))


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
        pytest.param("lstm", "batch_drive", marks=pytest.mark.slow),
        pytest.param("gru", "batch", marks=pytest.mark.slow),
    ],
)
def test_the_gradient_through_a_normalised_cell_is_autodiffs(name, kind, key):
    cell = made(name, kind)
    params = cell.init(key)

    def loss(params, xs, by):
        hs, last = by(cell, params, cell.rest((B,)), xs)
        return jnp.sum(jnp.sin(hs)) + jnp.sum(last.h**2)

    ours, theirs = (
        compiled(jax.grad(lambda p, x, by=by: loss(p, x, by), argnums=(0, 1)))(params, xs())
        for by in (unroll, unroll_autodiff)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9), ours, theirs)


@doubly
@every
def test_layer_normalisation_forgets_the_size_of_the_weights(name, key):
    cell = made(name, "layer")
    params = cell.init(key)
    large = params._replace(w=100 * params.w, u=100 * params.u)
    hs, _ = unroll(cell, params, cell.rest((B,)), 100 * xs())
    grown, _ = unroll(cell, large, cell.rest((B,)), 100 * xs())
    np.testing.assert_allclose(hs, grown, atol=2e-4)  # but for ε


@doubly
@every
def test_a_layer_is_normalised_over_its_units_and_an_example_does_not_feel_the_others(name, key):
    cell = made(name, "layer")
    params = cell.init(key)
    together, _ = unroll(cell, params, cell.rest((B,)), xs())
    alone, _ = unroll(cell, params, cell.rest((1,)), xs()[:, :1])
    np.testing.assert_allclose(together[:, :1], alone, rtol=1e-12)


@doubly
def test_layer_normalisation_of_an_rnn_is_ba_et_als(key):
    cell = made("rnn", "layer")
    params = cell.init(key)
    h = np.random.default_rng(1).normal(size=(B, H))
    a = np.asarray(xs()[0] @ params.w + h @ params.u)
    a = (a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + EPSILON)
    np.testing.assert_allclose(cells.step(cell, params, cells.Hidden(h), xs()[0]).h, np.tanh(a), rtol=1e-10)


@doubly
def test_batch_normalisation_of_an_lstm_is_cooijmans_et_als(key):
    cell = made("lstm", "batch")
    params = cell.init(key)
    h, before = np.random.default_rng(1).normal(size=(2, B, H))

    def bn(x):
        return 0.1 * (x - x.mean(0)) / np.sqrt(x.var(0) + EPSILON)

    z = bn(np.asarray(xs()[0] @ params.w)) + bn(np.asarray(h @ params.u)) + np.asarray(params.b)
    i, f, o, g = np.split(z, 4, axis=1)
    s = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    c = s(f) * before + s(i) * np.tanh(g)
    after = cells.step(
        cell, params, cells.Memory(jnp.asarray(np.random.default_rng(1).normal(size=(2, B, H))[1]), h), xs()[0]
    )
    np.testing.assert_allclose(after.c, c, rtol=1e-10)
    np.testing.assert_allclose(after.h, s(o) * np.tanh(bn(c)), rtol=1e-10)


@doubly
@every
def test_the_drive_is_normalised_over_the_batch_and_all_steps(name, key):
    cell = made(name, "batch_drive")
    params = cell.init(key)._replace(b=jnp.zeros_like(cell.init(key).b))
    z = np.asarray(cell.drive(params, 50 * xs() + 3)).reshape(T * B, -1)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-4)


@doubly
@every
@pytest.mark.parametrize("kind", ["batch_drive", "batch"])
def test_averages_that_have_settled_judge_a_batch_as_its_own_statistics_do(name, kind, key):
    """And then an example alone gives what it gave among the others, at any batch size."""
    learning, judging = made(name, kind), made(name, kind, training=False)
    params = learning.init(key)

    @compiled
    def observe(p):
        hs, _ = unroll(learning, p, learning.rest((B,)), xs())
        return p._replace(statistics=learning.observe(Layer(learning, p, learning.rest((B,)), xs(), None, hs)))

    for _ in range(300):
        params = observe(params)
    among, _ = unroll(learning, params, learning.rest((B,)), xs())
    apart, _ = unroll(judging, params, judging.rest((B,)), xs())
    alone, _ = unroll(judging, params, judging.rest((1,)), xs()[:, 2:3])
    np.testing.assert_allclose(apart, among, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(alone, apart[:, 2:3], rtol=1e-12)
    fresh, _ = unroll(judging, learning.init(key), judging.rest((B,)), xs())
    assert np.abs(fresh - among).max() > 1e-3  # the averages matter


@pytest.mark.parametrize("kind", ["layer", "batch_drive", "batch"])
def test_a_run_trains_keeps_its_averages_and_is_judged_with_them(kind):
    spec = Spec(steps=8, batch=16, hidden=(6,), cell="lstm", normalise=kind, holdout=64)
    h = Hypers(lr=1e-2).arrays()
    start = train.init(spec, h)
    state, metrics = compiled(lambda s: train.chunk(spec, h, s, None, 60))(start)
    assert bool(state.alive) and np.isfinite(metrics["loss"]).all()
    assert metrics["loss"][-10:].mean() < metrics["loss"][:5].mean()
    kept = state.params.layers[0].statistics
    assert (kept is None) == (kind == "layer")
    if kept is not None:
        assert np.abs(kept.x.mean - start.params.layers[0].statistics.x.mean).max() > 1e-2
        assert not any("statistics" in name for name in model.groups(state.params))
    assert gradient_error(spec, h, None) < 1e-5
    one = TASKS[spec.task](dataclasses.replace(spec, batch=1)).batch(None, "test", jax.random.key(0))
    single = dataclasses.replace(spec, batch=1)
    assert np.isfinite(model.predict(single, h, state.params, one)).all()
    judged = compiled(lambda s: train.evaluate(spec, h, s, None))(state)
    assert judged["test_loss"] < 2 * metrics["loss"][-10:].mean() + 0.1
