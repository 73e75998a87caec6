"""A cell from its step function alone: what a paper writes down, differentiated by JAX one step at a time."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.building import check_function, is_wider
from seqdyn.nets import statistics as kept
from seqdyn.nets.cells import Carry, Cell, Hidden, Memory
from seqdyn.parts import lenient
from seqdyn.types import Array, ConfigError, Key, Tree


def cell(
    init: Callable[[Key[Array, ""]], Tree],
    step: Callable[[Tree, Any, Array], Any],
    initial_carry: Callable[[tuple[int, ...]], Any],
    statistics: Callable[[Tree, Any, Array], Tree] | None = None,
) -> Cell:
    """The cell carry_t = step(params, carry_{t−1}, x_t); params = init(key), carry_0 = initial_carry(batch shape).

    A carry is an array h [*b, h]; or a NamedTuple, dataclass or dict of arrays [*b, …], one of which is `h`, the
    output. `step` has one batch axis, x [b, d]. `Memory.c` has the other arrays of the carry side by side, as floats:
    complex ones in two halves, whole numbers of 32 bits in two of 16. The backward pass keeps (carry, x) of every step
    and takes `jax.vjp` of the step at each; for the parameters it takes one over all steps.

    A cell that keeps running statistics, such as a mean over batches, has them in params["statistics"], which the
    optimiser leaves alone and no gradient reaches. After each update they become `statistics(params, before, xs)`, of
    the parameters that the update began with, the carry before every step, arrays [t, b, …], and the inputs [t, b, d].
    Weights that stay as drawn, as a reservoir's, are statistics that do not move: this returns params["statistics"].

    A part whose training is random, or takes a mean over the batch, has another such cell beside, see `nets.wrappers`.

    Raises ConfigError for a carry without h, and for a step that returns another kind of carry than it was given.
    """
    check_function("init of a cell", init, "key")
    check_function("step of a cell", step, "params", "carry", "x")
    check_function("initial_carry of a cell", initial_carry, "batch")
    if statistics is not None:
        check_function("statistics of a cell", statistics, "params", "before", "xs")

    def first(batch: tuple[int, ...]) -> Any:
        with lenient():
            return jax.tree.map(_strong, initial_carry(batch))

    def packed(carry: Any) -> Carry:
        h, others = _taken_apart(carry)
        if not others:
            return Hidden(h)
        flat = [jnp.reshape(part, (*h.shape[:-1], -1)) for leaf in others for part in _as_floats(leaf, h.dtype)]
        return Memory(jnp.concatenate(flat, axis=-1), h)

    def unpacked(carry: Carry) -> Any:
        batch = carry.h.shape[:-1]
        like = jax.eval_shape(lambda: first(batch))
        if isinstance(carry, Hidden):
            return _put_together(like, carry.h, [])
        others, start = [], 0
        for leaf in _taken_apart(like)[1]:
            count = len(jax.eval_shape(lambda leaf=leaf: _as_floats(jnp.zeros(leaf.shape, leaf.dtype), carry.h.dtype)))
            width = leaf.size // max(1, carry.h[..., 0].size)
            ends = [start + width * i for i in range(count + 1)]
            found = [carry.c[..., a:b].reshape(leaf.shape) for a, b in itertools.pairwise(ends)]
            others.append(_from_floats(found, leaf.dtype))
            start = ends[-1]
        return _put_together(like, carry.h, others)

    def once(params: Any, carry: Carry, x: Array) -> Carry:
        before = unpacked(carry)
        with lenient():
            after = step(kept.constant(params), before, x)
        return packed(_like("step", "carry", "initial_carry", before, after))

    def nonlinearity(params: Any, carry: Carry, x: Array, zh: Any) -> tuple[Carry, tuple[()]]:
        over = once
        for _ in range(carry.h.ndim - 2):  # all steps at once
            over = jax.vmap(over, in_axes=(None, 0, 0))
        return over(params, carry, x), ()

    def moved(ran: Any) -> Tree:
        def body(carry: Carry, x: Array) -> tuple[Carry, Any]:
            return once(ran.params, carry, x), unpacked(carry)

        before = jax.lax.scan(body, ran.carry, ran.xs)[1]
        with lenient():
            new = statistics(ran.params, before, ran.xs) if statistics else None
        return _like("statistics", "tree", "init", kept.of(ran.params), new)

    def begin(key: Key[Array, ""]) -> Tree:
        with lenient():
            return jax.tree.map(_strong, init(key))

    return Cell(
        gates=("h",),
        init=begin,
        initial_carry=lambda batch: packed(first(batch)),
        input_projection=lambda params, xs: xs,
        recurrent_projection=lambda params, h: (),  # all that h does is in the nonlinearity
        nonlinearity=nonlinearity,
        update_batch_stats=moved if statistics else None,
    )


def _strong(leaf: Any) -> Array:
    """An array of a definite type: 0.0 and jnp.full(…, 1.0) are of a weak one, which is another program."""
    try:
        found = jnp.asarray(leaf)
    except TypeError:
        raise ConfigError(
            f"a cell has {leaf!r:.60} in its init or its initial_carry; each must be a number or an array of them."
        ) from None
    return jax.lax.convert_element_type(found, found.dtype)


def _as_floats(leaf: Any, real: Any) -> list[Array]:
    """An array as floats that hold all of it: a complex one in two halves, whole numbers of 32 bits in two of 16."""
    if jnp.iscomplexobj(leaf):
        return [jnp.real(leaf).astype(real), jnp.imag(leaf).astype(real)]
    if _is_wide(leaf.dtype):
        return [(leaf >> 16).astype(real), (leaf & 0xFFFF).astype(real)]
    return [leaf.astype(real)]


def _from_floats(parts: list[Array], dtype: Any) -> Array:
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return jax.lax.complex(*parts).astype(dtype)
    if _is_wide(dtype):
        return (parts[0].astype(dtype) << 16) + parts[1].astype(dtype)
    return parts[0].astype(dtype)


def _is_wide(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) and jnp.iinfo(dtype).bits == 32


def _name(key: Any) -> str:
    return jax.tree_util.keystr((key,), simple=True)


def _taken_apart(carry: Any) -> tuple[Any, list[Any]]:
    """(h, the other arrays) of a carry."""
    found = jax.tree_util.tree_leaves_with_path(carry)
    if len(found) == 1 and not found[0][0]:
        return carry, []
    hs = [leaf for path, leaf in found if len(path) == 1 and _name(path[0]) == "h"]
    for _, leaf in found if len(hs) == 1 else ():
        if leaf.shape[: hs[0].ndim - 1] != hs[0].shape[:-1] or not _is_number(leaf.dtype):
            cure = "; a cell that is random has noise()" if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else ""
            raise ConfigError(
                f"the carry of a cell has {leaf.dtype} of the shape {leaf.shape} beside h, {hs[0].shape}; it must be "
                f"numbers [*b, …]{cure}."
            )
    if len(hs) != 1:
        raise ConfigError(
            f"the carry of a cell is a {type(carry).__name__} without h; it must be an array, or a NamedTuple, "
            "dataclass or dict of arrays of which one is h, the output."
        )
    return hs[0], [leaf for path, leaf in found if leaf is not hs[0]]


def _is_number(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.number) or dtype == jnp.bool_


def _put_together(like: Any, h: Array, others: list[Array]) -> Any:
    paths, tree = jax.tree_util.tree_flatten_with_path(like)
    rest = iter(others)
    return jax.tree.unflatten(
        tree, [h if not path or (len(path) == 1 and _name(path[0]) == "h") else next(rest) for path, _ in paths]
    )


def _like(function: str, what: str, begun: str, before: Any, after: Any) -> Any:
    """What a function of a cell returns, in the types of what `begun` gave."""
    name = f"the {function} of a cell returns"
    shapes = functools.partial(jax.tree.map, jnp.shape)
    if jax.tree.structure(before) != jax.tree.structure(after) or shapes(before) != shapes(after):
        raise ConfigError(
            f"{name} a {what} of the shape {shapes(after)}; it must be that of {begun}, {shapes(before)}."
        )
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if jnp.iscomplexobj(new) and not jnp.iscomplexobj(old):
            raise ConfigError(f"{name} complex numbers for a real {what}; keep both halves in it.")
        if is_wider(new, old):
            types = f"{jnp.result_type(new)} for a {what} of {jnp.result_type(old)}"
            raise ConfigError(f"{name} {types}, which cannot hold it; begin with the former.")
    return jax.tree.map(lambda old, new: jnp.asarray(new).astype(old.dtype), before, after)
