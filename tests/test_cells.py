"""Laws of `seqdyn.nets.cells`: Flax's cells, the published equations, and `vjp` as the transpose of `nonlinearity`."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn.backend import compiled
from seqdyn.nets.activations import ACTIVATIONS
from seqdyn.nets.bptt import Backprop, taps, unroll, valid_steps
from seqdyn.nets.cells import Cell, Hidden, Memory, gru, gru_reset_before, lstm, rnn, step
from seqdyn.nets.stack import unroll_autodiff
from seqdyn.nets.without_biases import without_biases

D, H, T, B = 3, 5, 6, 2
F64 = jnp.float64
CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru, "gru_reset_before": gru_reset_before}
every_cell = pytest.mark.parametrize("name", CELLS)


def random_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), tree)


def random_params(cell, seed=0):
    """Every weight and bias away from zero, so that none can be left out unnoticed."""
    return random_like(jax.eval_shape(cell.init, jax.random.key(0)), seed)


def random_carry(cell, batch=(), seed=1):
    return jax.tree.map(lambda leaf: 0.5 * leaf, random_like(cell.initial_carry(batch), seed))


def random_xs(batch=(B,), seed=2, steps=T):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(steps, *batch, D)))


def assert_close(ours, theirs, rtol=1e-10, atol=1e-12):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


# --- against Flax, whose sequence is a Python loop over its cell ---------------------------------------------


def ported(kernels, biases):
    """Flax's parameters: {'name': {'kernel': …, 'bias': …}}."""
    return {"params": {k: {"kernel": w} | ({"bias": biases[k]} if k in biases else {}) for k, w in kernels.items()}}


def flax_lstm(params):
    (wi, wf, wo, wg), (ui, uf, uo, ug), (bi, bf, bo, bg) = (np.split(p, 4, axis=-1) for p in params)
    kernels = {"ii": wi, "if": wf, "io": wo, "ig": wg, "hi": ui, "hf": uf, "ho": uo, "hg": ug}
    return nn.OptimizedLSTMCell(H, dtype=F64, param_dtype=F64), ported(
        kernels, {"hi": bi, "hf": bf, "ho": bo, "hg": bg}
    )


def flax_gru(params):
    (wr, wz, wn), (ur, uz, un), (br, bz, bn) = (np.split(p, 3, axis=-1) for p in params[:3])
    kernels = {"ir": wr, "iz": wz, "in": wn, "hr": ur, "hz": uz, "hn": un}
    return nn.GRUCell(H, dtype=F64, param_dtype=F64), ported(kernels, {"ir": br, "iz": bz, "in": bn, "hn": params.bn})


def flax_rnn(params):
    return nn.SimpleCell(H, dtype=F64, param_dtype=F64), ported({"i": params.w, "h": params.u}, {"i": params.b})


@pytest.mark.parametrize("name, port", [("lstm", flax_lstm), ("gru", flax_gru), ("rnn", flax_rnn)])
def test_cell_equals_flax_over_a_sequence(name, port):
    cell = CELLS[name](D, H, dtype=F64)
    params, carry, xs = random_params(cell), random_carry(cell, (B,)), random_xs()
    hs, last = compiled(lambda p, c, xs: unroll(cell, p, c, xs))(params, carry, xs)
    module, weights = port(params)

    def theirs(carry, xs):
        outputs = []
        for x in xs:
            carry, h = module.apply(weights, carry, x)
            outputs.append(h)
        return jnp.stack(outputs), carry

    state = tuple(carry) if name == "lstm" else carry.h
    flax_hs, flax_last = compiled(theirs)(state, xs)
    assert_close(hs, flax_hs)
    assert_close(tuple(last), flax_last if name == "lstm" else (flax_last,))


# --- against the equations of the docstrings, in NumPy -------------------------------------------------------


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def numpy_gru_reset_before(p, h, x):
    (wr, wz, wn), (ur, uz, un), (br, bz, bn) = (np.split(np.asarray(q), 3, axis=-1) for q in p)
    r = sigmoid(x @ wr + h @ ur + br)
    z = sigmoid(x @ wz + h @ uz + bz)
    n = np.tanh(x @ wn + bn + (r * h) @ un)
    return (1 - z) * n + z * h


def numpy_gru_reset_after(p, h, x):
    (wr, wz, wn), (ur, uz, un), (br, bz, bn) = (np.split(np.asarray(q), 3, axis=-1) for q in p[:3])
    r = sigmoid(x @ wr + h @ ur + br)
    z = sigmoid(x @ wz + h @ uz + bz)
    n = np.tanh(x @ wn + bn + r * (h @ un + np.asarray(p.bn)))
    return (1 - z) * n + z * h


@pytest.mark.parametrize(
    "name, equations", [("gru_reset_before", numpy_gru_reset_before), ("gru", numpy_gru_reset_after)]
)
def test_gru_equals_its_equations(name, equations):
    cell = CELLS[name](D, H, dtype=F64)
    params, carry, xs = random_params(cell), random_carry(cell, (B,)), random_xs()
    hs, last = compiled(lambda p, c, xs: unroll(cell, p, c, xs))(params, carry, xs)
    h, expected = np.asarray(carry.h), []
    for x in np.asarray(xs):
        h = equations(params, h, x)
        expected.append(h)
    assert_close(hs, np.stack(expected))
    assert_close(last.h, expected[-1])


FORMULAS = {
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.exp(z) - 1),
    "gelu": lambda z: z * 0.5 * (1 + np.vectorize(math.erf)(z / 2**0.5)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "softsign": lambda z: z / (1 + np.abs(z)),
    "hard_tanh": lambda z: np.clip(z, -1, 1),
    "identity": lambda z: z,
}
EDGE = np.array([-800.0, -30.0, -3.1, -0.7, -1e-3, 1e-3, 0.4, 2.9, 30.0, 800.0])
"""Away from kinks, and where an exponential would overflow."""


@pytest.fixture(scope="module")
def values():
    """name -> (φ, φ′ and the difference quotient of φ) at `EDGE`."""
    every, e = compiled(lambda z: {name: phi(z) for name, phi in ACTIVATIONS.items()}), 1e-6
    here, above, below = every(EDGE), every(EDGE + e), every(EDGE - e)
    return {name: (*here[name], (above[name][0] - below[name][0]) / (2 * e)) for name in here}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_equals_its_formula_and_its_slope_is_right_far_out(activation, values):
    value, slope, numeric = values[activation]
    with np.errstate(over="ignore"):
        expected = FORMULAS[activation](EDGE)
    np.testing.assert_allclose(value, np.where(np.isposinf(expected), EDGE, expected), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(slope, numeric, rtol=1e-5, atol=1e-7)


def test_rnn_equals_its_equation_for_every_activation():
    every = {name: rnn(D, H, name, dtype=F64) for name in ACTIVATIONS}
    cell = every["tanh"]
    params, carry, x = random_params(cell), random_carry(cell, (B,)), random_xs()[0]
    got = compiled(lambda *a: {name: step(cell, *a).h for name, cell in every.items()})(params, carry, x)
    w, u, b = (np.asarray(p) for p in params)
    z = np.asarray(x) @ w + np.asarray(carry.h) @ u + b
    for name, h in got.items():
        np.testing.assert_allclose(h, FORMULAS[name](z), rtol=1e-9, atol=1e-12, err_msg=name)


# --- vjp is the transpose of nonlinearity ---------------------------------------------------------------------------


def nonlinearity_and_vjp(cell, batch):
    """A function of numbers alone, and its arguments: (vjp, `jax.vjp` of nonlinearity), each as (before, dzx, dzh)."""
    params, carry = random_params(cell), random_carry(cell, batch)
    zx, zh = (random_like(jax.ShapeDtypeStruct((*batch, len(cell.gates) * H), F64), seed) for seed in (3, 4))

    def both(params, carry, zx, zh, adjoint):
        before, dzx, dzh = cell.vjp(adjoint, cell.nonlinearity(params, carry, zx, zh)[1])
        transpose = jax.vjp(lambda c, zx, zh: cell.nonlinearity(params, c, zx, zh)[0], carry, zx, zh)[1]
        return (before, dzx, dzx if dzh is None else dzh), transpose(adjoint)

    return both, (params, carry, zx, zh, random_like(carry, 5))


def assert_transposed(pulled, transposed):
    assert_close(pulled, transposed, rtol=1e-9)
    for leaf in jax.tree.leaves(transposed[1:]):
        assert np.any(leaf != 0)


@pytest.mark.parametrize("batch", [(), (B,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_vjp_is_the_transpose_of_the_nonlinearity(name, batch):
    both, arguments = nonlinearity_and_vjp(CELLS[name](D, H, dtype=F64), batch)
    assert_transposed(*compiled(both)(*arguments))


def test_vjp_of_an_rnn_is_the_transpose_of_its_nonlinearity_for_every_activation():
    every = {name: nonlinearity_and_vjp(rnn(D, H, name, dtype=F64), (B,))[0] for name in ACTIVATIONS}
    arguments = nonlinearity_and_vjp(rnn(D, H, dtype=F64), (B,))[1]
    for results in compiled(lambda *a: {name: both(*a) for name, both in every.items()})(*arguments).values():
        assert_transposed(*results)


@every_cell
def test_transposed_and_weight_gradients_are_the_transposes_of_both_projections(name):
    cell = CELLS[name](D, H, dtype=F64)
    if cell.transposed is None or cell.weight_gradients is None:
        assert cell.vjp is None  # JAX differentiates all of it
        return
    params, xs = random_params(cell), random_xs()
    before, k = random_xs(seed=6)[..., :1] * jnp.ones((1, 1, H)), len(cell.gates) * H
    dzx, dzh = (random_like(jax.ShapeDtypeStruct((T, B, k), F64), seed) for seed in (7, 8))
    gates_differ = name == "gru"

    def both(params):
        dz = dzh if gates_differ else dzx
        ours = (
            cell.weight_gradients(params, xs, before, dzx, dzh if gates_differ else None),
            cell.transposed(params)(dz),
        )
        of_params = jax.vjp(lambda p: (cell.input_projection(p, xs), cell.recurrent_projection(p, before)), params)[1](
            (dzx, dz)
        )[0]
        of_h = jax.vjp(lambda h: cell.recurrent_projection(params, h), before)[1](dz)[0]
        return ours, (of_params, of_h)

    (d_params, d_h), (expected, expected_h) = compiled(both)(params)
    if name == "gru":  # b_hn acts inside the gate, which hands dzh out for it
        expected = expected._replace(bn=jnp.sum(dzh[..., 2 * H :], axis=(0, 1)))
    assert_close((d_params, d_h), (expected, expected_h), rtol=1e-9)


# --- batch axes, dtypes, composition -------------------------------------------------------------------------


@every_cell
def test_batch_axes_change_no_number(name):
    cell = CELLS[name](D, H, dtype=F64)
    params, carry, xs = random_params(cell), random_carry(cell, (2, 3)), random_xs((2, 3))
    run = compiled(lambda c, xs: unroll(cell, params, c, xs))
    hs, last = run(carry, xs)
    flat = jax.tree.map(lambda leaf: leaf.reshape(6, H), carry)
    flat_hs, flat_last = run(flat, xs.reshape(T, 6, D))
    assert_close(hs.reshape(T, 6, H), flat_hs)
    for i in (0, 5):
        alone_hs, alone_last = run(jax.tree.map(lambda leaf: leaf[i], flat), xs.reshape(T, 6, D)[:, i])  # noqa: B023
        assert_close(alone_hs, flat_hs[:, i])
        assert_close(alone_last, jax.tree.map(lambda leaf: leaf[i], flat_last))  # noqa: B023
    assert_close(jax.tree.map(lambda leaf: leaf.reshape(6, H), last), flat_last)


@every_cell
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
def test_rest_is_zeros_of_the_batch_in_the_cells_type(name, batch):
    for dtype in (jnp.float32, F64):
        rest = CELLS[name](D, H, dtype=dtype).initial_carry(batch)
        assert isinstance(rest, Memory if name == "lstm" else Hidden)
        for leaf in rest:
            assert leaf.shape == (*batch, H) and leaf.dtype == dtype and not np.any(leaf)


@every_cell
def test_parameters_have_a_block_per_gate_and_the_cells_type(name):
    cell = CELLS[name](D, H)
    k = len(cell.gates) * H
    params = jax.eval_shape(cell.init, jax.random.key(0))
    assert (params.w.shape, params.u.shape, params.b.shape) == ((D, k), (H, k), (k,))
    assert {leaf.dtype for leaf in params} == {jnp.dtype(jnp.float32)}


def test_gates_lie_in_the_order_of_their_names():
    """Closing one gate by its bias has the effect its name says."""
    cell = lstm(D, H, dtype=F64)
    params, carry, x = random_params(cell), random_carry(cell, (B,)), random_xs()[0]
    run = compiled(lambda p: step(cell, p, carry, x))

    def shut(gate, value=-1e3):
        at = cell.gates.index(gate) * H
        return run(params._replace(b=params.b.at[at : at + H].set(value)))

    assert not np.any(shut("o").h) and np.any(shut("o").c)
    assert_close(run(params).c - shut("f").c, carry.c * jax.nn.sigmoid(_pre(params, carry, x, 1)))
    assert_close(shut("i").c, carry.c * jax.nn.sigmoid(_pre(params, carry, x, 1)))
    assert_close(shut("g", 1e3).c - shut("i").c, jax.nn.sigmoid(_pre(params, carry, x, 0)))
    cell = gru(D, H, dtype=F64)
    params, carry = random_params(cell), random_carry(cell, (B,))
    held = params._replace(b=params.b.at[H : 2 * H].set(1e3))
    assert_close(compiled(lambda p: step(cell, p, carry, x))(held), carry)


def _pre(params, carry, x, gate):
    z = x @ params.w + carry.h @ params.u + params.b[None]
    return z[:, gate * H : (gate + 1) * H]


# --- a user's own cell ---------------------------------------------------------------------------------------


class Leaky(NamedTuple):
    w: Any
    u: Any
    b: Any
    leak: Any


def leaky_rnn(inputs, hidden):
    """h_t = (1 − a) h_{t−1} + a tanh(W x_t + U h_{t−1} + b), a = σ(leak) learned, so the gate has a parameter."""

    def init(key):
        k_w, k_u, k_b = jax.random.split(key, 3)
        normal = jax.random.normal
        return Leaky(
            normal(k_w, (inputs, hidden)), normal(k_u, (hidden, hidden)), normal(k_b, (hidden,)), jnp.zeros(hidden)
        )

    def nonlinearity(params, carry, zx, zh):
        a = jnp.broadcast_to(jax.nn.sigmoid(params.leak), carry.h.shape)
        return Hidden((1 - a) * carry.h + a * jnp.tanh(zx + zh)), ()

    return Cell(
        gates=("h",),
        init=init,
        initial_carry=lambda batch: Hidden(jnp.zeros((*batch, hidden))),
        input_projection=lambda p, x: x @ p.w + jnp.broadcast_to(p.b, (*x.shape[:-1], hidden)),
        recurrent_projection=lambda p, h: h @ p.u,
        nonlinearity=nonlinearity,
    )


@pytest.mark.parametrize("batch", [(), (B,)], ids=str)
def test_a_users_cell_without_vjp_equals_autodiff(batch):
    cell = leaky_rnn(D, H)
    params, carry, xs = random_params(cell), random_carry(cell, batch), random_xs(batch)
    cut = Backprop(mask=valid_steps(jnp.asarray([6, 3]), T)) if batch else Backprop()

    def gradient(by, watch):
        def loss(params, carry, xs, watch):
            hs, last = by(cell, params, carry, xs, cut, watch) if watch else by(cell, params, carry, xs, cut)
            return jnp.sum(jnp.sin(hs)) + jnp.sum(last.h**3)

        return compiled(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(params, carry, xs, watch)

    value, ours = gradient(unroll, taps(cell, T, batch))
    expected, theirs = gradient(unroll_autodiff, None)
    assert_close((value, ours[:3]), (expected, theirs[:3]))
    assert np.all(np.asarray(ours[0].leak) != 0)
    assert np.all(np.asarray(ours[3].adjoint_norm.h)[:3] > 0)


# --- without biases -----------------------------------------------------------------------------------------


@every_cell
def test_without_biases_a_cell_is_the_one_whose_biases_are_0_and_stay_there(name):
    plain = CELLS[name](D, H, dtype=F64)
    cell, params, carry, xs = without_biases(plain), random_params(plain), random_carry(plain, (B,)), random_xs()
    biases = {"b", "bn"} & set(params._fields)
    silent = params._replace(**{n: jnp.zeros_like(getattr(params, n)) for n in biases})

    def ran(cell):
        def loss(params, xs):
            hs, last = unroll(cell, params, carry, xs)
            return jnp.sum(jnp.sin(hs)) + jnp.sum(last.h**2), hs

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)

    begun = cell.init(jax.random.key(0))
    assert not any(jnp.any(getattr(begun, n)) for n in biases) and jnp.any(begun.w)
    ((_, hs), (grads, dxs)), ((_, wanted), (theirs, dtheirs)) = compiled(
        lambda: (ran(cell)(params, xs), ran(plain)(silent, xs))
    )()
    assert_close((hs, dxs), (wanted, dtheirs))
    for n in params._fields:
        assert_close(getattr(grads, n), jnp.zeros_like(getattr(grads, n)) if n in biases else getattr(theirs, n))
        assert n not in biases or jnp.any(getattr(theirs, n))
