"""Laws of `seqdyn.nets.memoryless`: layers that read without a memory, through the pass that trains recurrent ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn.backend import compiled
from seqdyn.nets.bptt import Backprop, taps, unroll, valid_steps
from seqdyn.nets.memoryless import dense, dense_per_position
from seqdyn.nets.stack import unroll_autodiff

T, B, D, H = 6, 4, 3, 5
F64 = dict(dtype=jnp.float64)
LAYERS = {
    "dense": lambda phi="tanh": dense(D, H, phi, **F64),
    "dense_per_position": lambda phi="tanh": dense_per_position(T, D, H, phi, **F64),
}
every_layer = pytest.mark.parametrize("name", LAYERS)
LENGTHS = jnp.array([6, 2, 4, 1])


def problem(name, phi="tanh"):
    """(cell, its parameters, its rest, inputs, weights of a loss that reads every output)"""
    cell, rng = LAYERS[name](phi), np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.7 * rng.standard_normal(leaf.shape)), cell.init(jax.random.key(0)))
    return cell, params, cell.initial_carry((B,)), *(jnp.asarray(rng.standard_normal((T, B, n))) for n in (D, H))


@every_layer
def test_each_output_is_a_dense_layer_of_its_own_input(name):
    cell, params, rest, xs, _ = problem(name)
    hs, last = unroll(cell, params, rest, xs)
    for t in range(T):
        w, b = (params.w, params.b) if name == "dense" else (params.w[t], params.b[t])
        np.testing.assert_allclose(hs[t], np.tanh(np.asarray(xs[t]) @ w + np.asarray(b)[None]), rtol=1e-12)
    np.testing.assert_array_equal(last.h, hs[-1])


@every_layer
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("phi", ["tanh", "relu"])
def test_the_gradient_is_autodiffs(name, padded, phi):
    cell, params, rest, xs, weights = problem(name, phi)
    cut = Backprop(mask=valid_steps(LENGTHS, T, "before") if padded else None)

    def gradient(by):
        return compiled(jax.grad(lambda p, x: jnp.sum(weights * jnp.sin(by(cell, p, rest, x, cut)[0])), (0, 1)))(
            params, xs
        )

    for ours, theirs in zip(*(jax.tree.leaves(gradient(by)) for by in (unroll, unroll_autodiff)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@every_layer
def test_no_gradient_travels_with_or_without_the_exponent(name):
    cell, params, rest, xs, weights = problem(name)

    def loss(params, watch):
        return jnp.sum(weights * jnp.sin(unroll(cell, params, rest, xs, Backprop(), watch)[0]))

    plain, ranged = (
        compiled(jax.grad(loss, argnums=(0, 1)))(params, taps(cell, T, (B,), ranged=on)) for on in (False, True)
    )
    np.testing.assert_array_equal(plain[1].from_next_norm.h, np.zeros((T, B)))
    hs, _ = unroll(cell, params, rest, xs)
    np.testing.assert_allclose(plain[1].adjoint_norm.h, np.linalg.norm(weights * np.cos(hs), axis=-1), rtol=1e-12)
    for a, b in zip(jax.tree.leaves(plain[0]), jax.tree.leaves(ranged[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_shared_weights_pooled_cannot_see_the_order_and_weights_per_position_can():
    order = np.random.default_rng(1).permutation(T)
    for name in LAYERS:
        cell, params, rest, xs, _ = problem(name)
        pooled, shuffled = (np.sum(unroll(cell, params, rest, x)[0], axis=0) for x in (xs, xs[order]))
        assert np.allclose(pooled, shuffled, rtol=1e-12) == (name == "dense")


def test_parameters_grow_with_the_sequence_only_where_each_position_has_its_own():
    def count(cell):
        return sum(leaf.size for leaf in jax.tree.leaves(cell.init(jax.random.key(0))))

    assert count(dense(D, H)) == (D + 1) * H
    assert count(dense_per_position(T, D, H)) == T * (D + 1) * H


def test_positions_are_drawn_apart():
    w = dense_per_position(T, D, H).init(jax.random.key(0)).w
    assert len({np.asarray(block).tobytes() for block in w}) == T
