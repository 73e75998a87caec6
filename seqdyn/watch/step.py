"""One step of a scan whose backward pass is read.

Gradients are JAX's, untouched. What is read travels beside them, as the cotangent of a carry that does nothing forward:
λ = m · 2^e, which takes over where the gradients near the ends of their dtype's range; there the step is
differentiated once more, with respect to its carry.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.norms import norm, norm_near, power_of_two, unit
from seqdyn.types import Array, Bool, ConfigError, Float


class Tap(NamedTuple):
    """What is read of one step; the gradient with respect to it is the reading."""

    size: Float[Array, " b"]
    """Mantissa of ‖λ_t‖."""
    from_next: Float[Array, " b"]
    """Mantissa of the norm of what came from the next step."""
    exponent: Float[Array, " b"]
    adjoint: Any
    """λ_t of the picked leaves as it is, or None."""


def batch_axis(name: str, batch: Any) -> int | None | str:
    """`batch` as `watch.scan` takes it, or ConfigError."""
    if batch is None or (isinstance(batch, str) and batch == "first"):
        return batch
    if isinstance(batch, int | np.integer) and not isinstance(batch, bool):
        return int(batch)
    raise ConfigError(f"batch of {name!r} is {batch!r}; it must be an axis, or None for the carry of one example.")


class Plan(NamedTuple):
    """How the leaves of a carry are read; those that are no floats are not."""

    floats: tuple[int, ...]
    picked: tuple[int, ...]
    """Those of `floats` that are read."""
    outputs: tuple[int | None, ...]
    """For each leaf of y, the leaf of the new carry that it is."""
    batch: int | None
    examples: int
    apart: bool
    """Has every one of `floats` the batch axis? Then each example has its exponent; else all share one."""
    adjoint: Any
    """The structure of the picked leaves if λ itself is read, else None."""

    @property
    def exponents(self) -> int:
        """How many there are."""
        return self.examples if self.apart else 1

    def tap(self, leaves: Sequence[Any], lead: tuple[int, ...]) -> Tap:
        """Zeros in the shape of the readings, behind the axes `lead`."""
        zeros = jnp.zeros((*lead, self.examples), self._dtype(leaves, self.picked))
        kept = [jnp.zeros((*lead, *leaves[i].shape), leaves[i].dtype) for i in self.picked]
        return Tap(zeros, zeros, zeros.astype(jnp.float32), None if self.adjoint is None else kept)

    def back(self, leaves: Sequence[Any]) -> Any:
        """(m, e, are they in use?, a guess at ‖λ‖) as zeros: the carry that does nothing forward."""
        m = [jnp.zeros(leaves[i].shape, leaves[i].dtype) for i in self.floats]
        e = jnp.zeros(self.exponents, jnp.float32)
        return m, e, jnp.zeros((), jnp.float32), e.astype(self._dtype(leaves, self.floats))

    def _dtype(self, leaves: Sequence[Any], which: Sequence[int]) -> Any:
        return _widest([_real(leaves[i].dtype) for i in which])

    def size(self, leaves: Sequence[Array], together: bool, guess: Array | None = None) -> Float[Array, " b"]:
        """The norm over all these leaves, of each example or of all; with a guess as `norms.norm_near` takes it."""
        rows = [self._rows(leaf, together) for leaf in leaves]
        dtype = _widest([row.dtype for row in rows])
        rows = [row.astype(dtype) for row in rows]
        if guess is None:
            return norm(jnp.concatenate(rows, axis=-1))
        guess = jnp.broadcast_to(guess.astype(dtype), rows[0].shape[:1])
        sizes = [norm_near(row, guess) for row in rows]
        return sizes[0] if len(sizes) == 1 else guess * jnp.sqrt(sum(jnp.square(size / guess) for size in sizes))

    def _rows(self, leaf: Array, together: bool) -> Float[Array, "b n"]:
        """The absolute values of a leaf, a row for each example, or one for all."""
        real = jnp.abs(leaf).astype(_real(leaf.dtype))
        if together or self.batch is None:
            return real.reshape(1, -1)
        rows = jnp.moveaxis(real, self.batch, 0)
        return rows.reshape(self.examples, math.prod(rows.shape[1:]))  # of no examples −1 would have no meaning

    def norms(self, near: list[Array], adjoint: list[Array], guess: Array | None = None) -> tuple[Array, Array, Array]:
        """‖λ‖ of the picked leaves, the norm of what came to them from the next step, and that of what came to all."""
        places = [self.floats.index(i) for i in self.picked]
        from_next = self.size([near[i] for i in places], False, guess)
        same = all(adjoint[i] is near[i] for i in places)
        size = from_next if same else self.size([adjoint[i] for i in places], False, guess)
        alone = self.picked == self.floats and self.examples == self.exponents
        return size, from_next, from_next if alone else self.size(near, not self.apart, guess)

    def times(self, leaf: Array, e: Float[Array, " b"]) -> Array:
        """leaf · 2^e. In two halves, since 2^e alone may be no float where the product is."""
        wide = leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else _real(leaf.dtype)
        shape = [1] * leaf.ndim
        if self.apart and self.batch is not None:
            shape[self.batch] = self.examples
        half, found, real = jnp.floor(e / 2), leaf.astype(wide), _real(leaf.dtype)
        for part in (half, e - half):
            factor = power_of_two(jnp.minimum(part, jnp.finfo(real).maxexp - 2), real)  # 0 · ∞ would be NaN
            found = found * factor.astype(wide).reshape(shape)
        return found.astype(leaf.dtype)

    def local(self, d_y: Sequence[Array]) -> list[Array | None]:
        """The cotangents of those leaves of y that are leaves of the new carry; None for leaves without."""
        found: dict[int, Array] = {}
        for d, i in zip(d_y, self.outputs, strict=True):
            if i is not None:
                found[i] = found[i] + d if i in found else d
        return [found.get(i) for i in self.floats]


class _Leaf:
    """Stands for a leaf of a carry where `of` picks among them."""


def planned(name: str, carry: Any, of: Any, batch: Any, adjoint: bool, y: Sequence[Any], new: Sequence[Any]) -> Plan:
    """What `watch.scan` is asked to read of a carry; ConfigError where that cannot be. `y` and `new`, what the step
    returns, have the same object where they have the same value."""
    leaves, tree = jax.tree.flatten(carry)
    floats = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if of is None:
        picked = floats
        tree = jax.tree.structure(jax.tree.unflatten(tree, [i if i in floats else None for i in range(len(leaves))]))
    else:
        places = [_Leaf() for _ in leaves]
        try:
            chosen, tree = jax.tree.flatten(of(jax.tree.unflatten(tree, places)))
        except (TypeError, AttributeError, LookupError):
            chosen = [of]
        picked = [places.index(leaf) for leaf in chosen if leaf in places]
        if not 0 < len(chosen) == len(set(picked) & set(floats)):
            raise ConfigError(f"of of {name!r} is {of!r:.80}; it must return leaves of the carry that are floats.")
    if not picked:
        raise ConfigError(f"the carry of {name!r} is {[leaf.dtype for leaf in leaves]}; floats must be in it.")
    axis = 0 if batch == "first" else batch
    shapes = [leaves[i].shape for i in picked]
    if batch == "first" and min(map(len, shapes)) < 2:
        raise ConfigError(
            f"batch of {name!r} is not given for leaves of the shapes {shapes}; it must be None for the carry of one "
            "example, 0 for a batch of numbers; leaves without a batch are left out by `of`."
        )
    sizes = [1 if axis is None else s[axis] if -len(s) <= axis < len(s) else -1 for s in map(jnp.shape, leaves)]
    examples = sizes[picked[0]]
    if {sizes[i] for i in picked} != {max(0, examples)}:
        raise ConfigError(
            f"batch of {name!r} is {axis}; it must be an axis of the carry's leaves, of the shapes {shapes}, of one "
            "size in all (or None, for the carry of one example)."
        )
    outputs = tuple(next((i for i in floats if new[i] is var), None) for var in y)
    apart = all(sizes[i] == examples for i in floats)
    return Plan(tuple(floats), tuple(picked), outputs, axis, examples, apart, tree if adjoint else None)


def _real(dtype: Any) -> Any:
    """The dtype of a norm: float32, or float64 where there is one."""
    return jnp.dtype(jnp.float64 if jnp.finfo(dtype).bits > 32 else jnp.float32)


def _widest(dtypes: Sequence[Any]) -> Any:
    return max(dtypes, key=lambda dtype: dtype.itemsize)


def _reach(dtype: Any) -> int:
    """Norms between 2^±reach have parts that are far from the ends of the dtype's range."""
    return {8: 80, 11: 900}.get(jnp.finfo(dtype).nexp, 4)


def read(step: Callable[..., Any], plan: Plan) -> Callable[..., Any]:
    """(consts, carry, back, x, tap) -> (new carry, back, y) of `step`: (consts, carry, x) -> (new carry, y), all lists
    of leaves; the gradient with respect to `tap` is what `plan` reads.

    The step itself is differentiated by JAX as it would be without us; what it returns then passes by here.
    """

    @jax.custom_vjp
    def passing(new: Any, y: Any, back: Any, tap: Tap, inputs: Any) -> Any:
        return new, back, y

    def forward(new: Any, y: Any, back: Any, tap: Tap, inputs: Any) -> Any:
        return (new, back, y), inputs

    def backward(inputs: Any, cotangents: Any) -> Any:
        d_new, back, d_y = cotangents
        (consts, carry, x), *given = jax.lax.stop_gradient((inputs, d_new, d_y, back))
        back, tap = _read(plan, lambda carry: step(consts, carry, x), carry, *given)
        return d_new, d_y, back, tap, None

    passing.defvjp(forward, backward)

    def watched(consts: Any, carry: Any, back: Any, x: Any, tap: Tap) -> Any:
        new, y = step(consts, carry, x)
        return passing(new, y, back, tap, (consts, carry, x))

    return watched


def _read(plan: Plan, step: Callable[[Any], Any], carry: Any, d_new: Any, d_y: Any, back: Any) -> tuple[Any, Tap]:
    """(the cotangent of `back` for the step before, the readings of this one), with `step` of the carry before it."""
    m, e, away, guess = back
    near, local = [d_new[i] for i in plan.floats], plan.local(d_y)
    adjoint = _plus(near, local)
    least = 2.0 ** -min(_reach(leaf.dtype) for leaf in near)

    def plain(norms: Any) -> Any:
        return (m, jnp.zeros_like(e), away), norms, jnp.zeros_like(e)

    def careful() -> Any:
        norms = plan.norms(near, adjoint)
        size = norms[2]
        lost = (size != 0) & ~((size > least) & (size < 1 / least))
        kept = _all((away == 0) & ~jnp.any(lost))
        return jax.lax.cond(kept, lambda: plain(norms), lambda: _ranged(plan, step, carry, d_new, d_y, m, e, away))

    # Nearly always the last norm is a good guess at this one, which makes it the cheaper; all else has to be looked at.
    guess = unit(guess)
    quick = plan.norms(near, adjoint, guess)
    low, high = jnp.maximum(guess * 2.0**-40, least), jnp.minimum(guess * 2.0**40, 1 / least)
    inside = [(n > low.astype(n.dtype)) & (n < high.astype(n.dtype)) for n in {id(n): n for n in quick}.values()]
    usual = _all((away == 0) & jnp.all(reduce(jnp.logical_and, inside)))
    back, (size, from_next, guess), unit_of = jax.lax.cond(usual, lambda: plain(quick), careful)
    kept = None if plan.adjoint is None else [adjoint[plan.floats.index(i)] for i in plan.picked]
    exponent = jnp.broadcast_to(unit_of, (plan.examples,))
    return (*back, guess), Tap(size, from_next, exponent, kept)


@jax.custom_batching.custom_vmap
def _all(flag: Bool[Array, ""]) -> Bool[Array, ""]:
    """The flag; under `jax.vmap` that of all, since with a flag for each a `cond` computes both of its branches."""
    return flag


@_all.def_vmap
def _all_of_them(axis_size: int, in_batched: Any, flag: Bool[Array, " n"]) -> tuple[Bool[Array, ""], bool]:
    return _all(jnp.all(flag)), False


def _ranged(
    plan: Plan, step: Callable[[Any], Any], carry: Any, d_new: Any, d_y: Any, m: Any, e: Array, away: Array
) -> Any:
    """As above, λ being m · 2^e where it is away from the gradients' range."""
    near = [jnp.where(away > 0, theirs, d_new[i]) for i, theirs in zip(plan.floats, m, strict=True)]
    near, adjoint, e = _sum(plan, near, e, plan.local(d_y))
    d_new, nothing = [jnp.zeros_like(d) for d in d_new], [jnp.zeros_like(d) for d in d_y]
    moved = list(d_new)
    for i, leaf in zip(plan.floats, adjoint, strict=True):
        moved[i] = leaf
    pull = jax.vjp(step, carry)[1]
    (earlier,), before = pull((moved, nothing)), e
    earlier = [earlier[i] for i in plan.floats]
    within = [d for d, i in zip(d_y, plan.outputs, strict=True) if i is None and jnp.issubdtype(d.dtype, jnp.inexact)]
    if within:  # y that f computes: what it adds to λ is in units of 1
        d_y = [d if i is None else zero for d, zero, i in zip(d_y, nothing, plan.outputs, strict=True)]
        (entered,) = pull((d_new, d_y))
        _, earlier, before = _sum(plan, earlier, e, [entered[i] for i in plan.floats])
    return (earlier, before, jnp.ones_like(away)), plan.norms(near, adjoint), e


def _plus(near: list[Any], local: Sequence[Any]) -> list[Any]:
    return [a if b is None else a + b for a, b in zip(near, local, strict=True)]


_STRIDE = 40
"""Mantissas are brought back to 1 where they have left 2^±stride, 4 where a half float is among them."""


def _sum(plan: Plan, near: list[Any], e: Array, local: Sequence[Any]) -> tuple[list[Any], list[Any], Array]:
    """(near, near + local, e′) in units of 2^e′, of `near` in units of 2^e and `local` in units of 1.

    A local error that dwarfs what came from the next step is counted in its own units: what is 2^40 times smaller
    keeps what precision is left to it there.
    """
    stride = min(_STRIDE, *(_reach(leaf.dtype) for leaf in near))
    size = plan.size(near, not plan.apart)
    order = jnp.floor(jnp.log2(jnp.where(jnp.isfinite(size) & (size > 0), size, 1))).astype(e.dtype)
    unit = jnp.where(size > 0, e + jnp.where(jnp.abs(order) > stride, order, 0), 0)
    given = [leaf for leaf in local if leaf is not None]
    if given:
        entered = jnp.log2(plan.size(given, not plan.apart)).astype(e.dtype)
        unit = jnp.where((unit < 0) & (entered > unit + stride), 0, unit)
    near = [plan.times(leaf, e - unit) for leaf in near]
    return near, _plus(near, [None if leaf is None else plan.times(leaf, -unit) for leaf in local]), unit
