"""Laws of `seqdyn.measure.jacobians` and `graded`: step Jacobians against JAX's, windows against known products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _training import having

from seqdyn.backend import compiled
from seqdyn.data.tasks import Batch
from seqdyn.learn import model, train
from seqdyn.learn.config import Spec
from seqdyn.measure import jacobians
from seqdyn.measure.graded import window_singular
from seqdyn.measure.view import View
from seqdyn.nets.bptt import Backprop, Tap, unroll, valid_steps
from seqdyn.nets.cells import Memory, gru, gru_reset_before, lstm, rnn, step
from seqdyn.numbers import Numbers

D, H, T = 2, 3, 6
CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru, "gru_reset_before": gru_reset_before}
every_cell = pytest.mark.parametrize("name", CELLS)


def problem(name, t=T, batch=(), seed=0, hidden=H):
    rng = np.random.default_rng(seed)
    cell = CELLS[name](D, hidden, dtype=jnp.float64)

    def draw(tree):
        return jax.tree.map(lambda leaf: jnp.asarray(0.8 * rng.standard_normal(leaf.shape)), tree)

    params = draw(jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0))))
    carry = draw(jax.eval_shape(lambda: cell.initial_carry(batch)))
    return cell, params, carry, jnp.asarray(rng.standard_normal((t, *batch, D)))


def by_jax_traced(cell, params, carry, xs):
    """J_t one after another, from JAX's own Jacobian of a step."""

    def of(carry, x):
        at = jacobians.vector(carry)
        j = jax.jacobian(lambda v: jacobians.vector(step(cell, params, jacobians.parts(carry, v), x)))(at)
        return step(cell, params, carry, x), j

    return jax.lax.scan(of, carry, xs)[1]


def by_jax(cell, *arguments):
    return np.asarray(compiled(lambda *a: by_jax_traced(cell, *a))(*arguments))


def product(steps):
    """J_T … J_2 J_1."""
    whole = np.eye(steps.shape[-1])
    for j in steps:
        whole = j @ whole
    return whole


@every_cell
def test_step_jacobians_are_those_of_a_step_over_the_whole_state(name):
    cell, params, carry, xs = problem(name)
    got = compiled(lambda *a: jacobians.step_jacobians(cell, *a))(params, carry, xs)
    n = H * (2 if name == "lstm" else 1)
    assert got.shape == (T, n, n)
    np.testing.assert_allclose(got, by_jax(cell, params, carry, xs), rtol=1e-9, atol=1e-12)


def test_an_lstms_jacobian_is_not_that_of_h_with_c_held_fixed():
    cell, params, carry, xs = problem("lstm")
    steps = compiled(lambda *a: jacobians.step_jacobians(cell, *a))(params, carry, xs)
    frozen = by_jax(cell, params, carry, xs)[:, H:, H:]
    whole, alone = product(np.asarray(steps))[H:, H:], product(frozen)
    assert np.linalg.norm(whole - alone) > 0.1 * np.linalg.norm(whole)


@every_cell
def test_an_adjoint_is_pulled_back_by_the_product_of_step_jacobians_later_steps_on_the_left(name):
    cell, params, carry, xs = problem(name)
    weight = jnp.asarray([1.0, -2.0, 0.5])

    def loss(zero):
        return weight @ unroll(cell, params, carry, xs, Backprop(), Tap(adjoint=zero))[1].h

    zero = jax.tree.map(lambda leaf: jnp.zeros((T, *leaf.shape)), carry)
    read = compiled(jax.grad(loss))(zero)
    steps = np.asarray(compiled(lambda *a: jacobians.step_jacobians(cell, *a))(params, carry, xs))
    last = np.concatenate([np.zeros(steps.shape[-1] - H), weight])
    adjoints = np.asarray(jacobians.vector(read))
    for t in range(T):
        np.testing.assert_allclose(adjoints[t], last @ product(steps[t + 1 :]), rtol=1e-6, atol=1e-12)
    turned = last @ product(steps[1:][::-1])
    assert np.linalg.norm(turned - adjoints[0]) > 1e-2 * np.linalg.norm(adjoints[0])


def test_window_singular_values_are_those_of_the_explicit_product():
    steps = np.random.default_rng(0).standard_normal((9, 2, 5, 5))
    lags = (1, 3, 8)
    got = window_singular(steps, lags)
    for i, lag in enumerate(lags):
        for b in range(2):
            expected = np.linalg.svd(product(steps[9 - lag :, b]), compute_uv=False)
            np.testing.assert_allclose(np.exp(got[i, b]), expected, rtol=1e-8)
    reversed_order = window_singular(steps[::-1], (8,))
    assert np.max(np.abs(reversed_order - got[2:])) > 0.1


@pytest.mark.parametrize("n", [1, 4, 5])
def test_singular_values_far_beyond_the_range_of_floats_keep_their_digits(n):
    """J_t = Q_t diag(d) Q_{t−1}ᵀ: the product of 1,000 has the singular values d^1000, from 1e200 to 1e-1000."""
    rng = np.random.default_rng(n)
    q = np.linalg.qr(rng.standard_normal((1001, n, n)))[0]
    d = np.geomspace(1.6, 0.1, n)
    steps = q[1:] * d @ np.swapaxes(q[:-1], -1, -2)
    np.testing.assert_allclose(window_singular(steps, (1000,))[0], 1000 * np.log(d), rtol=1e-10, atol=1e-8)


def test_the_logarithms_of_a_window_sum_to_that_of_its_determinant_however_it_is_graded():
    steps = np.random.default_rng(3).standard_normal((400, 6, 6))
    got = window_singular(steps, (400,))[0]
    np.testing.assert_allclose(got.sum(), np.linalg.slogdet(steps)[1].sum(), rtol=1e-10)
    assert got[0] - got[-1] > 500  # 220 decades between the largest and the least


def test_zeros_are_minus_infinity_and_what_is_not_finite_is_nan():
    steps = np.random.default_rng(0).standard_normal((4, 2, 3, 3))
    steps[1, 0, 2] = 0  # one direction dies in one example
    steps[2, 1, 0, 0] = np.inf
    got = window_singular(steps, (1, 4))
    assert np.isfinite(got[0]).all() and np.isfinite(got[1, 0, :2]).all()
    assert np.isneginf(got[1, 0, 2]) and np.isnan(got[1, 1]).all()


@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_the_largest_modes_without_a_jacobian_are_the_exact_ones(name):
    cell, params, carry, xs = problem(name, t=40, batch=(2,))
    steps = compiled(lambda *a: jacobians.step_jacobians(cell, *a))(params, carry, xs)
    exact = window_singular(np.asarray(steps), (1, 12, 40))
    key, lags = jax.random.key(1), (1, 12, 40)
    top = compiled(lambda p, c, x: jacobians.top_singular(cell, p, c, x, 2, key, lags))(params, carry, xs)
    np.testing.assert_allclose(top, exact[..., :2], rtol=1e-6, atol=1e-6)
    norms = compiled(lambda p, c, x: jacobians.step_norms(cell, p, c, x, key))(params, carry, xs)
    np.testing.assert_allclose(norms, jacobians.largest_singular(steps), rtol=1e-6)


def test_a_frame_narrower_than_the_state_comes_near_from_below_the_nearer_the_more_it_works():
    cell, params, carry, xs = problem("gru", t=21, batch=(3,), hidden=24)
    params = params._replace(u=params.u / 4)  # singular values that lie close: the frame has 6 columns of 24
    key, lags = jax.random.key(1), (1, 3, 21)
    steps, *found = compiled(
        lambda p, c, x: (
            jacobians.step_jacobians(cell, p, c, x),
            *(jacobians.top_singular(cell, p, c, x, 2, key, lags, work=work) for work in (1, jacobians.WORK, 300)),
        )
    )(params, carry, xs)
    exact = window_singular(np.asarray(steps), lags)
    least, usual, most = (np.asarray(exact[..., :2] - of) for of in found)
    for below in (least, usual, most):
        assert below.min() > -1e-9
    assert least.max() > 1e-2 and usual.max() < 3e-3 and most.max() < 1e-6


def test_dead_units_leave_no_mode_more_than_they_do_of_the_exact_ones():
    cell = rnn(1, 8, "relu", dtype=jnp.float64)
    params = cell.init(jax.random.key(0))
    params = params._replace(b=jnp.where(jnp.arange(8) < 6, -100.0, 1.0))  # two units live
    key = jax.random.key(0)
    steps, top = compiled(
        lambda p, c, x: (
            jacobians.step_jacobians(cell, p, c, x),
            jacobians.top_singular(cell, p, c, x, 4, key, (1, 4)),
        )
    )(params, cell.initial_carry(()), jnp.ones((5, 1)))
    exact = window_singular(np.asarray(steps), (1, 4))
    assert np.isfinite(exact[:, :2]).all() and np.isneginf(exact[:, 2:]).all()
    np.testing.assert_allclose(top, exact[:, :4], rtol=1e-9, atol=1e-12)


def test_the_largest_singular_values_of_bidiagonal_matrices_are_those_of_lapack():
    rng = np.random.default_rng(0)
    diagonal, above = rng.standard_normal((2, 7, 5)) ** 2 * np.asarray([1e-200, 1e-3, 1, 1e3, 0])
    above[0] = 0
    expected = [np.linalg.norm(np.diag(d) + np.diag(a[1:], 1), 2) for d, a in zip(diagonal.T, above.T, strict=True)]
    np.testing.assert_allclose(compiled(jacobians.largest_of_bidiagonal)(diagonal, above), expected, rtol=1e-12)


def test_with_padding_the_identity_stands_before_an_examples_first_step():
    cell, params, carry, xs = problem("lstm", batch=(3,))
    lengths, of = [6, 2, 4], compiled(lambda *a: jacobians.step_jacobians(cell, *a))
    padded = of(params, carry, xs, valid_steps(jnp.asarray(lengths), T))
    for b, length in enumerate(lengths):
        alone = by_jax(cell, params, Memory(carry.c[b], carry.h[b]), xs[:length, b])
        np.testing.assert_allclose(padded[T - length :, b], alone, rtol=1e-9, atol=1e-12)
        eye = np.broadcast_to(np.eye(2 * H), (T - length, 2 * H, 2 * H))
        np.testing.assert_array_equal(padded[: T - length, b], eye)


def test_windows_are_a_1_2_5_series_up_to_the_first_step():
    assert jacobians.windows(100) == (1, 2, 5, 10, 20, 50, 99)
    assert jacobians.windows(2) == (1,) and jacobians.windows(6) == (1, 2, 5)


def test_a_state_that_is_not_finite_has_no_jacobian_formed_or_not():
    cell = rnn(1, 3, "relu", dtype=jnp.float64)
    params = cell.init(jax.random.key(0))
    xs = jnp.ones((5, 1)).at[3].set(jnp.nan)  # ReLU's slope at NaN is 0, which would pass for a dead unit
    steps, norms, top = compiled(
        lambda p, c, x, k: (
            jacobians.step_jacobians(cell, p, c, x),
            jacobians.step_norms(cell, p, c, x, k),
            jacobians.top_singular(cell, p, c, x, 1, k),
        )
    )(params, cell.initial_carry(()), xs, jax.random.key(0))
    assert np.isfinite(steps[:3]).all() and np.isnan(steps[3:]).all()
    assert np.isfinite(norms[:3]).all() and np.isnan(norms[3:]).all()
    assert np.isnan(top).all()


@pytest.mark.slow
def test_the_probe_averages_logarithms_over_the_examples_that_are_long_enough():
    lengths, modes = [T, 2, 1, 4], 5  # the first layer has 6, so that its Jacobians are not formed
    rng = np.random.default_rng(0)
    mask = valid_steps(jnp.asarray(lengths), T, "after")
    ids = jnp.asarray(np.where(mask, rng.integers(1, 9, mask.shape), 0), jnp.int32)
    spec = Spec(task="labelled", vocabulary=9, embedding=2, hidden=(3, 2), cell="lstm", steps=T, batch=len(lengths))

    def look(numbers):
        state = train.init(having(spec, numbers))
        view = View(Batch(ids, jnp.zeros(len(lengths)), mask), None, modes)
        layers = [layer[1:4] for layer in model.per_layer(having(spec, numbers), state.params, view.batch)]
        return jacobians.measure(having(spec, numbers), state, view), layers

    with jax.enable_x64(False):  # training is float32
        numbers = Numbers(gain=1.5).arrays()
        looked, layers = compiled(look)(numbers)
    assert {"top0", "jacobians1"} < set(looked)
    got = jacobians.finish(spec, {k: np.asarray(v)[None] for k, v in looked.items()}, modes)
    assert got["step_norm"].shape == (1, 2, T) and got["window_log_singular"].shape == (1, 2, 3, modes)
    for i, (cell, layer) in enumerate(zip(model.layers(having(spec, numbers)), layers, strict=True)):
        params, carry, xs = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), layer)
        alone = jax.vmap(lambda c, x, cell=cell, params=params: by_jax_traced(cell, params, c, x), in_axes=(0, 1))
        steps = [j[:t] for j, t in zip(np.asarray(compiled(alone)(carry, xs)), lengths, strict=True)]
        for w, lag in enumerate(jacobians.windows(T)):
            sizes = [np.linalg.svd(product(j[-lag:]), compute_uv=False) for j in steps if len(j) > lag]
            logs = np.mean(np.log10(sizes), axis=0)
            np.testing.assert_allclose(got["window_log_singular"][0, i, w, :2], logs[:2], atol=1e-4)
            assert np.isnan(got["window_log_singular"][0, i, w, len(logs) :]).all()
            condition = got["window_log_condition"][0, i, w]
            assert np.isnan(condition) if i == 0 else abs(condition - (logs[0] - logs[-1])) < 0.01
        norms = [[np.linalg.norm(j[-lag - 1], 2) for j in steps if len(j) > lag] for lag in reversed(range(T))]
        expected = [np.exp(np.mean(np.log(of))) for of in norms]
        np.testing.assert_allclose(got["step_norm"][0, i], expected, rtol=1e-4)
