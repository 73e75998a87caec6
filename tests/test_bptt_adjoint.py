"""Laws of what terms of the objective read: an adjoint can be differentiated again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn.backend import compiled
from seqdyn.nets import cells
from seqdyn.nets.bptt import taps, unroll

X64 = False


@pytest.mark.parametrize("ranged", [False, True])
def test_a_function_of_the_adjoints_has_the_gradient_of_autodiff(ranged):
    """Against a plain scan with zeros added to its state, whose gradient is the adjoint. In float64."""
    with jax.enable_x64(True):
        cell = cells.lstm(2, 3, dtype=jnp.float64)
        params, xs = cell.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (5, 4, 2))
        rest = jax.tree.map(lambda leaf: leaf.astype(xs.dtype), cell.initial_carry((4,)))
        watch = taps(cell, 5, (4,), ranged=ranged, adjoint=True)

        def uneven(adjoint):
            log2 = jnp.log2(jnp.sum(adjoint**2, axis=-1))
            return jnp.sum((log2[1:] - log2[:-1]) ** 2)

        def read(params):
            seen = jax.grad(lambda w: jnp.sum(unroll(cell, params, rest, xs, watch=w)[0][-1] ** 3))(watch)
            power = jnp.exp2(seen.exponent.astype(xs.dtype))[..., None] if ranged else 1.0
            return uneven(seen.adjoint.h * power)

        def plain(params):
            def loss(zeros):
                def step(carry, at):
                    x, zero = at
                    drive = cell.input_projection(params, x[None])[0]
                    carry = cell.nonlinearity(params, carry, drive, cell.recurrent_projection(params, carry.h))[0]
                    return carry._replace(h=carry.h + zero), None

                return jnp.sum(jax.lax.scan(step, rest, (xs, zeros))[0].h ** 3)

            return uneven(jax.grad(loss)(jnp.zeros((5, 4, 3))))

        ours, theirs = (compiled(jax.grad(of))(params) for of in (read, plain))
        assert all(np.abs(leaf).max() > 1e-3 for leaf in theirs)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), ours, theirs)
