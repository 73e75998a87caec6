"""Laws of `seqdyn.measure.curvature`: against explicit Hessians, covariances, finite differences and enumeration."""

import dataclasses
import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _programs import program
from _training import having, over, start
from jax.flatten_util import ravel_pytree

from seqdyn.backend import compiled
from seqdyn.data.tasks import Batch
from seqdyn.learn import model
from seqdyn.learn.config import Spec
from seqdyn.measure.curvature import directional_sharpness, hessian_product, lanczos, measure, noise_scale, sharpness
from seqdyn.measure.view import View
from seqdyn.nets.bptt import Backprop, unroll, valid_steps
from seqdyn.nets.cells import gru, lstm, rnn
from seqdyn.nets.stack import unroll_autodiff
from seqdyn.numbers import Numbers

KEY = jax.random.key(1)


def symmetric(values, seed=0, dtype=np.float64):
    """A matrix with these eigenvalues in a random basis."""
    n = len(values)
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    return np.asarray(q @ np.diag(np.asarray(values, float)) @ q.T, dtype)


# --- eigenvalues --------------------------------------------------------------------------------------------


def test_the_sharpness_of_a_quadratic_is_its_matrix_s_algebraically_largest_eigenvalue():
    a, values = symmetric([-5, -4, -1, 0.5, 2, 3]), (3, -5)
    params = {"one": np.arange(2.0), "two": np.ones((2, 2))}

    def loss(params):
        x = ravel_pytree(params)[0]
        return 0.5 * x @ a @ x + jnp.sum(x)

    @program
    def both(params):
        return [sharpness(lambda p, size=size: size * loss(p), params, KEY) for size in (1, -3)]

    ends, scaled = both(params)
    np.testing.assert_allclose((ends.largest, ends.least), values, rtol=1e-12)
    assert max(ends.error, ends.least_error) < 1e-12
    np.testing.assert_allclose((scaled.largest, scaled.least), (15, -9), rtol=1e-12)


def test_an_estimate_lies_inside_the_spectrum_and_within_its_error_of_an_eigenvalue():
    values = np.linspace(-2, 3, 60)
    a, errors = symmetric(values), []
    counts = (1, 5, 20, 60)
    found = program(lambda a: [lanczos(lambda v: a @ v, a[0], KEY, n) for n in counts])(a)
    for ends in found:
        assert -2 - 1e-12 <= ends.least <= ends.largest <= 3 + 1e-12
        for value, error in ((ends.largest, ends.error), (ends.least, ends.least_error)):
            assert np.min(np.abs(values - value)) <= error + 1e-12
        errors.append(float(ends.error))
    assert errors[0] > 0.5 and errors[-1] < 1e-10 and errors[2] < errors[1]


EXHAUSTED = {"rank 1": [2] + [0] * 29, "identity": [1] * 30, "two values": [-3] * 10 + [-1] * 20, "zero": [0] * 30}


@cache
def ends_of():
    return program(lambda a: lanczos(lambda v: a @ v, a[0], KEY))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", EXHAUSTED)
def test_an_exhausted_krylov_space_adds_nothing(name, dtype):
    values = EXHAUSTED[name]
    atol = 1e-5 if dtype == np.float32 else 1e-13
    for a in (symmetric(values, dtype=dtype), np.diag(np.asarray(values, dtype))):
        ends = ends_of()(a)
        np.testing.assert_allclose((ends.largest, ends.least), (max(values), min(values)), atol=atol)
        assert ends.error < atol and ends.least_error < atol


def test_a_product_that_is_not_finite_gives_nan():
    ends = program(lambda bad: lanczos(lambda v: bad * v, jnp.ones(7), KEY))
    for bad in (np.nan, np.inf):
        assert np.all(np.isnan(ends(bad)))


CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru}


def recurrent(name, seed=0, t=6, b=3, d=2, h=3):
    """(params, by -> loss): a loss of every output and the last carry of a padded batch, in float64."""
    cell = CELLS[name](d, h, dtype=jnp.float64)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), jax.eval_shape(cell.init, KEY))
    xs, weights = rng.standard_normal((t, b, d)), rng.standard_normal((t, b, h))

    def through(by):
        def loss(params):
            cut = Backprop(mask=valid_steps(jnp.array([6, 2, 5]), t))
            hs, last = by(cell, params, cell.initial_carry((b,)), jnp.asarray(xs), cut)
            return jnp.sum(weights * jnp.sin(hs)) + sum(jnp.sum(jnp.cos(leaf)) for leaf in last)

        return loss

    return params, through


@pytest.mark.parametrize("name", CELLS)
def test_curvature_through_the_hand_written_backward_is_that_of_the_explicit_hessian(name):
    params, through = recurrent(name)

    @program
    def both(params):
        flat, unflatten = ravel_pytree(params)
        explicit = jax.hessian(lambda x: through(unroll_autodiff)(unflatten(x)))(flat)
        return explicit, sharpness(through(unroll), params, KEY, 60)

    explicit, ends = both(params)
    values = np.linalg.eigvalsh(explicit)
    np.testing.assert_allclose((ends.largest, ends.least), (values[-1], values[0]), rtol=1e-9)


def test_directional_sharpness_is_the_second_difference_of_the_loss_along_the_gradient():
    params, through = recurrent("lstm")
    e = 1e-4

    @program
    def found(params):
        loss = through(unroll)
        g = jax.grad(loss)(params)
        size = jnp.linalg.norm(ravel_pytree(g)[0])
        ahead, behind = (loss(jax.tree.map(lambda p, d, s=s: p + s * d / size, params, g)) for s in (e, -e))
        got = directional_sharpness(hessian_product(loss, params), g)
        return got, (ahead - 2 * loss(params) + behind) / e**2

    np.testing.assert_allclose(*found(params), rtol=1e-5)


# --- noise --------------------------------------------------------------------------------------------------


def squared_error(w, example):
    x, y = example
    return jnp.square(x @ w["w"] + w["b"] - y)


def regression(n, seed=0):
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray([0.3, -0.2]), "b": jnp.asarray(0.1)}, (rng.normal(size=(n, 2)), rng.normal(size=n))


def by_example(w, examples):
    """∇ of each example's squared error, by hand: 2 (x·w + b − y) (b: 1, w: x)."""
    x, y = examples
    residual = 2 * (x @ np.asarray(w["w"]) + float(w["b"]) - y)
    return np.concatenate([residual[:, None], residual[:, None] * x], axis=1)


def test_noise_is_that_of_the_explicit_covariance_of_gradients():
    w, (x, y) = regression(11)
    examples = (x, y + 3)  # a signal beside the noise
    g = by_example(w, examples)
    noise = compiled(partial(noise_scale, squared_error))(w, jax.tree.map(jnp.asarray, examples))
    variance = np.trace(np.cov(g.T))
    square = np.sum(g.mean(axis=0) ** 2) - variance / 11
    assert square > 0
    np.testing.assert_allclose(noise, (variance / square, square, variance), rtol=1e-12)


def test_both_parts_of_the_noise_are_right_on_average_over_every_batch_that_could_be_drawn():
    w, population = regression(4, seed=3)
    g = by_example(w, population)
    rows = np.array(list(itertools.product(range(4), repeat=3)))
    batches = jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), population)
    noise = compiled(jax.vmap(partial(noise_scale, squared_error), in_axes=(None, 0)))(w, batches)
    np.testing.assert_allclose(np.mean(noise.gradient_variance), np.sum(g.var(axis=0)), rtol=1e-12)
    np.testing.assert_allclose(np.mean(noise.gradient_square), np.sum(g.mean(axis=0) ** 2), rtol=1e-12)
    drowned = np.asarray(noise.gradient_square) <= 0
    assert 0 < drowned.sum() < len(rows)
    np.testing.assert_array_equal(np.isnan(noise.scale), drowned)


def test_one_example_has_no_noise_to_speak_of():
    w, examples = regression(1)
    assert np.all(np.isnan(compiled(partial(noise_scale, squared_error))(w, jax.tree.map(jnp.asarray, examples))))


# --- the probe ----------------------------------------------------------------------------------------------

T, B = 6, 4
TEXT = Spec(task="labelled", steps=T, batch=8, vocabulary=7, embedding=2, hidden=(3,), clip="adjoint", truncate=True)


@cache
def looks(spec):
    return compiled(over(measure, spec))


@pytest.fixture
def single():
    """Runs are float32."""
    with jax.enable_x64(False):
        yield


def scene(seed=0):
    """A state with every bias away from zero, and a view of a padded batch of another size than training's."""
    h = Numbers(clip=1e-3, window=2).arrays()
    state = start(TEXT, seed=seed)
    ids = jnp.asarray(np.random.default_rng(1).integers(0, 7, (T, B)), jnp.int32)
    mask = valid_steps(jnp.array([6, 2, 4, 5]), T, "before")
    batch = Batch(ids, jnp.asarray([0.0, 1.0, 1.0, 0.0]), mask, jnp.ones(B))
    return h, state, View(batch, None, 3)


@pytest.mark.slow
def test_a_look_is_the_curvature_and_noise_of_the_exact_loss_whatever_training_clips(single):
    h, state, view = scene()
    got = looks(TEXT)(h, state, view)
    exact = dataclasses.replace(TEXT, truncate=False, clip="norm")
    flat, unflatten = ravel_pytree(state.params)

    def examples(x):
        p = model.predict(having(exact, h), unflatten(x), view.batch, by=unroll_autodiff)
        return model.losses(exact, p, view.batch.ys)

    of = compiled(lambda x: (jax.hessian(lambda x: jnp.mean(examples(x)))(x), jax.jacrev(examples)(x)))
    hessian, each = (np.asarray(a, np.float64) for a in of(flat))
    g, values = each.mean(axis=0), np.linalg.eigvalsh(hessian)
    variance = np.trace(np.cov(each.T))
    square = g @ g - variance / B
    expected = {
        "sharpness": values[-1],
        "least_curvature": values[0],
        "directional_sharpness": g @ hessian @ g / (g @ g),
        "gradient_variance": variance,
        "gradient_square": square,
        "noise_scale": variance / square if square > 0 else np.nan,
    }
    assert set(got) == {*expected, "sharpness_error"} and 0 < got["sharpness_error"] < 1e-3 * values[-1]
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-3, err_msg=name)


@pytest.mark.slow
def test_looks_of_many_runs_under_vmap_and_map_are_the_looks_of_each(single):
    h, _, view = scene()
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[scene(seed)[1] for seed in (0, 1)])
    states = states._replace(alive=jnp.array([True, False]))
    vmapped, mapped = compiled(
        lambda h, states, view: (
            jax.vmap(over(measure, TEXT), in_axes=(None, 0, None))(h, states, view),
            jax.lax.map(lambda s: measure(having(TEXT, h), s, view), states),
        )
    )(h, states, view)
    alone = looks(TEXT)(h, scene()[1], view)
    assert np.isfinite(alone["sharpness"])
    for name, value in alone.items():
        for many in (vmapped, mapped):
            if name != "sharpness_error":  # rounding, here
                np.testing.assert_allclose(many[name][0], value, rtol=1e-3, atol=1e-6, err_msg=name)
            assert np.isnan(many[name][1])


@pytest.mark.slow
def test_a_state_of_nan_has_records_of_nan(single):
    h, state, view = scene()
    lost = state._replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params))
    assert all(np.isnan(value) for value in looks(TEXT)(h, lost, view).values())


@pytest.mark.slow
def test_dead_units_leave_the_curvature_of_the_readout_s_bias(single):
    spec = Spec(steps=T, batch=B, activation="relu", hidden=(3,))
    h, state = Numbers().arrays(), start(spec)
    layer = state.params.layers[0]
    dead = state._replace(params=state.params._replace(layers=(layer._replace(b=layer.b - 100),)))
    rng = np.random.default_rng(0)
    view = View(Batch(jnp.asarray(rng.normal(size=(T, B, 2)), "f"), jnp.asarray(rng.normal(size=B), "f")), None, 3)
    got = looks(spec)(h, dead, view)
    np.testing.assert_allclose((got["sharpness"], got["least_curvature"]), (2, 0), atol=1e-5)
