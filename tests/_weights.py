"""Networks that other frameworks have, too: their parameters drawn by NumPy, what they predict, and the gradient."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _training import having

from seqdyn import Spec
from seqdyn.backend import compiled
from seqdyn.data.batches import Batch
from seqdyn.data.tasks import valid_mask
from seqdyn.learn import model
from seqdyn.numbers import Numbers
from seqdyn.runs.axes import shapes

T, B, D, H, K = 4, 3, 2, 3, 2
XS = np.random.default_rng(0).normal(size=(B, T, D))
LENGTHS = np.array([2, 3, 1])
IDS = np.random.default_rng(1).integers(0, 5, size=(B, T))


def spec(cell="lstm", levels=1, both=False, readout="last", dtype="float64", **more):
    given = {"features": D} | more
    return Spec(
        "labelled" if readout != "every" else "next_step",
        steps=T,
        batch=B,
        cell=cell,
        hidden=(H,) * levels,
        bidirectional=both,
        readout=readout,
        dtype=dtype,
        **({"classes": 3} | given),
    )


def drawn(spec, bias=True, seed=0, odd=False):
    """A `Model`; without `bias` those of its layers are 0. `odd` are its numbers where other ways would lose bits."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(leaf.dtype), shapes(spec).params)
    if not bias:
        layers = [
            jax.tree.map(lambda leaf: leaf if leaf.ndim > 1 else np.zeros_like(leaf), layer) for layer in params.layers
        ]
        params = params._replace(layers=tuple(layers))
    if odd:
        for leaf in jax.tree.leaves(params):
            leaf.flat[0], leaf.flat[-1] = -0.0, np.finfo(leaf.dtype).smallest_subnormal
    return jax.tree.map(jnp.asarray, params)


class Known(NamedTuple):
    """Of one network on `XS` or `IDS`: L = Σ sin(predictions)."""

    predictions: Any
    """[b, k], or [b, t, k]"""
    grads: Any


def total(predictions):
    return jnp.sum(jnp.sin(predictions))


@cache
def _program(spec):
    def both(params, xs):
        def loss(params):
            found = model.predict(
                having(spec, Numbers().arrays(spec.dtype)), params, Batch(jnp.swapaxes(xs, 0, 1), jnp.zeros(B))
            )
            return total(found), found

        (_, found), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return Known(jnp.swapaxes(found, 0, 1) if spec.readout == "every" else found, grads)

    return compiled(both)


def known(spec, params):
    with jax.numpy_dtype_promotion("standard"):
        return _program(spec)(params, jnp.asarray(IDS) if spec.vocabulary else jnp.asarray(XS, spec.dtype))


def of_lengths(spec, params):
    """(predictions in float64, which of them count) on `XS` or `IDS`, of which `LENGTHS` steps are no padding."""
    spec, predictions, given = _of_lengths(spec, params)
    with jax.numpy_dtype_promotion("standard"):
        found, steps = compiled(predictions)(*given)
    if spec.readout == "every":
        return np.swapaxes(found, 0, 1), np.swapaxes(steps, 0, 1)
    return np.asarray(found), np.ones(B, bool)


def _of_lengths(spec, params):
    spec = Spec(**{**vars(spec), "dtype": "float64", "decided": ()})

    def predictions(params, xs, lengths):
        batch = Batch(jnp.swapaxes(xs, 0, 1), jnp.zeros(B), valid_mask(spec, lengths))
        return model.predict(having(spec, Numbers().arrays(spec.dtype)), params, batch), batch.mask

    with jax.numpy_dtype_promotion("standard"):
        xs, params = jnp.asarray(IDS if spec.vocabulary else XS), jax.tree.map(jnp.float64, params)
    return spec, predictions, (params, xs, jnp.asarray(LENGTHS))


def gradient_of_lengths(spec, params):
    """∂/∂params of Σ sin(predictions), each of a whole sequence, in float64."""
    _, predictions, given = _of_lengths(spec, params)
    with jax.numpy_dtype_promotion("standard"):
        return compiled(jax.grad(lambda *given: total(predictions(*given)[0])))(*given)


def close(a, b, tolerance=1e-12):
    """All of two trees, relative to the largest of each array."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.shape == other.shape
        apart = np.max(np.abs(one - other)) / max(1.0, np.max(np.abs(other)))
        assert apart <= tolerance


def same(a, b):
    """Bit for bit, types included."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (one.dtype, one.shape, np.asarray(one).tobytes()) == (
            other.dtype,
            other.shape,
            np.asarray(other).tobytes(),
        )
