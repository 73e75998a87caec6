"""`scan` and `value_and_grad`: how readings find their way out of a loss.

`value_and_grad` traces the loss twice. The first time every watched scan says its name and the shape of its readings;
the second time each is given zeros of that shape, the gradient with respect to which is the reading. What stands
around a scan (jit, cond, remat, other watched scans, vmap) is seen by the first trace.
"""

import functools
import math
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from seqdyn.backend import device_axes
from seqdyn.types import Array, ConfigError, one_of, whole
from seqdyn.watch.seen import Seen
from seqdyn.watch.step import Plan, Tap, batch_axis, planned, read

_MARK = "seqdyn.watch"


class _Record(NamedTuple):
    """What the first trace learns of a scan."""

    within: tuple[str, ...]
    """The watched scans around it, outermost first."""
    plan: Plan
    times: tuple[int, ...]
    """Steps of the scans around it, and its own."""
    reverse: bool
    vmaps: dict[int, int]
    """Sizes of the vmapped axes around it within the loss, innermost first."""
    carry: list[Any]
    """Shapes and dtypes of the leaves."""

    def zeros(self) -> Tap:
        """What the second trace is given: [*times around, vmapped, time, …], of one that none reads if none are."""
        vmapped = (max(1, math.prod(self.vmaps.values())),) if self.vmaps else ()
        return self.plan.tap(self.carry, (*self.times[:-1], *vmapped, self.times[-1]))

    def seen(self, tap: Tap, mean: bool) -> Seen:
        """Readings from the gradients with respect to `zeros`."""
        around = len(self.times) - 1
        if self.vmaps:
            there = (slice(None),) * around + (slice(math.prod(self.vmaps.values())),)
            moved = jax.tree.map(lambda leaf: jnp.moveaxis(leaf[there], around, around + 1), tap)
            size, from_next, e = (of.reshape(*self.times, math.prod(of.shape[around + 1 :])) for of in moved[:3])
            tap = Tap(size, from_next, e, moved.adjoint)
        last = 0 if self.reverse else -1
        factor = tap.size.shape[-1] if mean else 1
        from_next = tap.from_next.at[..., last, :].set(0) if self.times[-1] else tap.from_next
        tree = self.plan.adjoint
        adjoint = None if tree is None else jax.tree.unflatten(tree, tap.adjoint)
        return Seen(tap.size * factor, tap.exponent, from_next * factor, adjoint)


class _Frame(NamedTuple):
    """Where a trace stands."""

    records: dict[str, _Record]
    taps: dict[str, Tap] | None = None
    """None in the first trace."""
    within: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    devices: frozenset[str] = frozenset()
    """The axes of devices around `value_and_grad`."""


_frame: ContextVar[_Frame | None] = ContextVar("frame", default=None)
_trace = jax.make_user_context(None)
"""Functions that a loss has jitted are traced anew for each trace of the loss: their programs differ."""


@contextmanager
def _standing(frame: _Frame | None) -> Any:
    token = _frame.set(frame)
    try:
        with _trace(None if frame is None else object()):
            yield
    finally:
        _frame.reset(token)


def watching() -> bool:
    """Is a loss being traced whose scans are read?"""
    return _frame.get() is not None


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    *,
    name: str = "scan",
    of: Callable[[Any], Any] | None = None,
    batch: int | None | str = "first",
    adjoint: bool = False,
) -> tuple[Any, Any]:
    """`jax.lax.scan`, whose backward pass `value_and_grad` reads as `seen[name]`, a `Seen`.

    Without `value_and_grad` around it, it is `jax.lax.scan`. Within, values and gradients are those of `jax.lax.scan`,
    too. Read is λ_t = ∂L/∂carry_t, over all leaves of the carry that are floats, or over those that `of(carry)`
    returns: `of=lambda carry: carry[1]`. What carry_t receives from the step t + 1, from the loss of the last carry,
    and from y_t where y_t is itself a leaf of the new carry, as in `return h, h`, is in it; a y_t that f computes from
    the carry is a part of the step, and what enters there is seen at t − 1.

    `batch` is the axis of the examples in the carry's leaves, the first; None if the carry is of one example, as within
    a `jax.vmap`, whose axis then counts the examples. Examples are taken as independent where ‖λ_t‖ leaves the range
    of its dtype; with a leaf without that axis they share an exponent, and the smallest may be read as 0. `adjoint`
    keeps λ_t itself. A scan in a function that the loss differentiates itself, by `jax.grad`, is read as 0.

    Raises ConfigError for a name that is no text or is another's in the same loss, for a length that is no whole
    number, for a carry that has no such axis, for an `of` that returns anything but leaves of the carry, and where
    readings would add up: in the body of a loop of `jax.lax` that is not watched itself, and on several devices of a
    `jax.shard_map` or `jax.pmap` within the loss.
    """
    if not isinstance(name, str):
        raise ConfigError(f"name is {name!r}; it must be text, a name of its own for each watched scan of a loss.")
    axis = batch_axis(name, batch)
    length = None if length is None else whole(f"length of {name!r}", length, 0)
    frame = _frame.get()
    plain = functools.partial(jax.lax.scan, length=length, reverse=reverse, unroll=unroll)
    if frame is None:
        return plain(f, init, xs)
    if device_axes() - frame.devices:
        raise ConfigError(
            f"name is {name!r}, of a watched scan within jax.shard_map or jax.pmap, whose devices would add their "
            "readings up; value_and_grad must stand within, too, or the devices be left to jax.jit."
        )
    if frame.taps is None and name in {*frame.records, *frame.within}:
        raise ConfigError(
            f"name is {name!r}, of two watched scans of this loss, or of one traced twice, as in nn.scan of Flax; each "
            "must have a name of its own, and layers be a loop of Python."
        )
    if not all(map(jnp.ndim, jax.tree.leaves(xs))):
        raise ConfigError(f"xs of {name!r} has a number in it; it must be arrays [time, …], not a list of numbers.")

    with _standing(None):
        last, _ = jax.eval_shape(functools.partial(plain, f), init, xs)
    init = jax.tree.map(_as, init, last)
    xs = jax.tree.map(jnp.asarray, xs)
    steps = length if not jax.tree.leaves(xs) else jax.tree.leaves(xs)[0].shape[0]
    assert steps is not None  # jax.lax.scan has seen to it

    taps = {} if frame.taps is None else {n: t for n, t in frame.taps.items() if name in frame.records[n].within}
    below = frame._replace(within=(*frame.within, name), times=(*frame.times, steps))

    def body(carry: Any, inputs: Any) -> tuple[Any, Any]:
        x, taps = inputs
        with _standing(below._replace(taps=None if frame.taps is None else taps)):
            return f(carry, x)

    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (xs, taps))
    closed, out = jax.make_jaxpr(body, return_shape=True)(init, first)
    carried, tree = jax.tree.leaves(init), jax.tree.structure(out)

    def step(consts: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        flat = jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, consts))(*carry, *x)
        return flat[: len(carry)], flat[len(carry) :]

    def finish(found: Any) -> tuple[Any, Any]:
        return jax.tree.unflatten(tree, [*found[0], *found[1]])

    moved, given = jax.tree.leaves((xs, taps)), jax.lax.stop_gradient((carried, jax.tree.leaves(xs), closed.consts))
    if frame.taps is None:
        values = _values(closed.jaxpr)
        plan = planned(name, init, of, axis, adjoint, values[len(carried) :], values[: len(carried)])
        record = _Record(frame.within, plan, below.times, reverse, {}, [leaf.aval for leaf in carried])
        frame.records[name] = record
        checkpoint_name(_index(record.vmaps, 0, True)(given), f"{_MARK} {len(frame.within)} {name}")
        return finish(plain(functools.partial(step, closed.consts), carried, moved, length=steps))

    record = frame.records[name]
    tap = frame.taps[name]
    if record.vmaps:
        index = _index(record.vmaps, 0, False)(given)
        tap = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), tap)
    watched = read(step, record.plan)

    def watched_body(state: Any, inputs: Any) -> tuple[Any, Any]:
        carry, back, y = watched(closed.consts, state[0], state[1], *inputs)
        return (carry, back), y

    back = _batched(given, record.plan.back(carried))
    (last, _), ys = plain(watched_body, (carried, back), (moved, tap), length=steps)
    return finish((last, ys))


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    allow_int: bool = False,
    *,
    reduction: str = "mean",
) -> Callable[..., Any]:
    """`jax.value_and_grad`, whose function returns what was read of the watched scans in `fun` as well.

    (value, grads, seen), or ((value, aux), grads, seen) with `has_aux`; `seen` is a dict of `Seen` by the scans' names.
    `reduction` says how the loss goes over the examples: of a 'mean' over b examples each one's own loss is b times
    its share, of a 'sum' it is its share.

    `fun` is traced twice, with abstract arrays as by `jax.jit`. A `jax.jit` belongs around the function returned (on a
    CPU `seqdyn.compiled`, which says why); functions jitted within `fun` are compiled anew at each call outside of one.
    Differentiate it further as you would `jax.value_and_grad`'s: the readings are constants then. Under `jax.vmap`,
    readings have its axis in front.

    Raises ConfigError where no watched scan is in `fun`, or where `fun` differentiates one itself in forward mode, and
    what `scan` raises.
    """
    if not callable(fun):
        raise ConfigError(f"fun is {fun!r:.80}; it must be a function, the loss.")
    one_of("reduction", reduction, ["mean", "sum"])

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any, dict[str, Seen]]:
        try:
            numbers = tuple(
                range(len(args))[number] for number in ((argnums,) if isinstance(argnums, SupportsIndex) else argnums)
            )
            if len({*numbers}) < len(numbers):
                raise IndexError
        except (TypeError, IndexError):
            right = f"it must number the {len(args)} arguments by position, each at most once"
            raise ConfigError(f"argnums is {argnums!r}; {right}.") from None
        _check_leaves({n: args[n] for n in numbers})
        records = _records(fun, numbers, args, kwargs)

        def tapped(taps: dict[str, Tap], *args: Any) -> Any:
            with _standing(_Frame(records, taps, devices=device_axes())):
                return fun(*args, **kwargs)

        differentiated = jax.value_and_grad(tapped, (0, *(n + 1 for n in numbers)), has_aux, allow_int=allow_int)
        with _backwards():
            value, (read, *grads) = differentiated({n: record.zeros() for n, record in records.items()}, *args)
        seen = {name: records[name].seen(tap, reduction == "mean") for name, tap in read.items()}
        return value, grads[0] if isinstance(argnums, SupportsIndex) else tuple(grads), seen

    return wrapped


@contextmanager
def _backwards() -> Iterator[None]:
    """Raises ConfigError for a loss that differentiates a watched scan forwards, where JAX speaks of a custom_vjp."""
    try:
        yield
    except (TypeError, NotImplementedError) as error:
        if not re.search("forward-mode .* custom_vjp|'custom_lin'", str(error)):
            raise
        raise ConfigError(
            "fun differentiates in forward mode (jax.jvp, jax.jacfwd, jax.linearize) what has a rule for reverse mode "
            "alone, as a watched scan; it must be jax.vjp, jax.jacrev or jax.grad there, or that scan jax.lax.scan."
        ) from error


def _check_leaves(given: dict[int, Any]) -> None:
    for number, tree in given.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if callable(leaf) or isinstance(leaf, str):
                raise ConfigError(
                    f"argument {number} has at {jax.tree_util.keystr(path)!r} a {type(leaf).__name__}; its leaves must "
                    "be arrays: a model of Equinox is split by eqx.partition(model, eqx.is_inexact_array)."
                )


def _records(fun: Callable[..., Any], numbers: tuple[int, ...], args: Any, kwargs: Any) -> dict[str, _Record]:
    """The first trace."""
    records: dict[str, _Record] = {}

    def traced(given: Any) -> None:
        filled = [given[i] if i in given else arg for i, arg in enumerate(args)]
        with _standing(_Frame(records, devices=device_axes())):
            fun(*filled, **kwargs)

    closed = jax.make_jaxpr(traced)({n: args[n] for n in numbers})
    if not records:
        raise ConfigError(
            f"fun is {getattr(fun, '__name__', fun)!r:.80}, in which no scan is watched; it must hold a watch.scan."
        )
    _check_loops(closed.jaxpr, 0)
    return records


def _check_loops(jaxpr: Jaxpr, loops: int, ruled: bool = False) -> None:
    """Raises ConfigError for a watched scan with more loops around it than are watched, or one in a function that has
    a derivative of its own."""
    for eqn in jaxpr.eqns:
        mark, _, rest = str(eqn.params.get("name", "")).partition(" ")
        watched, _, name = rest.partition(" ")
        marked = eqn.primitive.name == "name" and mark == _MARK
        if marked and ruled:
            raise ConfigError(
                f"name is {name!r}, of a watched scan in a function that has a derivative of its own (jax.custom_vjp, "
                "jax.custom_jvp), which hides it; that scan must stand outside."
            )
        if marked and loops > int(watched):
            raise ConfigError(
                f"name is {name!r}, of a watched scan in the body of a loop of jax.lax, whose turns would add their "
                "readings up; that loop must be a watch.scan, too, or a jax.vmap."
            )
        inner = loops + (eqn.primitive.name in ("scan", "while"))
        for body in _bodies(eqn):
            _check_loops(body, inner, ruled or eqn.primitive.name.startswith(("custom_vjp", "custom_jvp")))


def _index(vmaps: dict[int, int], level: int, first: bool) -> Any:
    """A function of what a scan is given that returns which of the vmapped scans it is, outermost axis first.

    The `first` trace writes down the axes; the second knows by them which vmaps are within the loss.
    """

    @jax.custom_batching.custom_vmap
    def index(given: Any) -> Array:
        return jnp.zeros((), jnp.int32)

    @index.def_vmap
    def rule(axis_size: int, in_batched: Any, given: Any) -> tuple[Array, bool]:
        if first:
            vmaps[level] = axis_size
        elif level not in vmaps:
            return jnp.zeros((), jnp.int32), False
        outer = _index(vmaps, level + 1, first)(given)
        return outer * axis_size + jnp.arange(axis_size, dtype=jnp.int32), True

    return index


@jax.custom_batching.custom_vmap
def _batched(given: Any, tree: Any) -> Any:
    """`tree`, whose leaves have an axis for each `jax.vmap` that maps anything in `given`.

    A cotangent of what had none of its own would be the sum over the examples.
    """
    return tree


@_batched.def_vmap
def _batched_by(axis_size: int, in_batched: Any, given: Any, tree: Any) -> tuple[Any, Any]:
    each = jax.tree.map(
        lambda leaf, has: leaf if has else jnp.broadcast_to(leaf, (axis_size, *leaf.shape)), tree, in_batched[1]
    )
    return _batched(given, each), jax.tree.map(lambda _: True, tree)


def _as(leaf: Any, like: Any) -> Array:
    """An initial leaf in the dtype in which jax.lax.scan carries it."""
    leaf = jnp.asarray(leaf)
    return leaf if leaf.dtype == like.dtype else jax.lax.convert_element_type(leaf, like.dtype)


def _values(jaxpr: Jaxpr) -> list[Any]:
    """What a function returns, such that the same value twice is the same object, through calls of functions, too."""
    same: dict[Any, Any] = {}
    for eqn in jaxpr.eqns:
        bodies = list(_bodies(eqn))
        if bodies and eqn.primitive.name in _CALLS:
            columns = list(zip(*map(_values, bodies), strict=True))
            for i, var in enumerate(eqn.outvars):
                first = next(
                    j for j in range(i + 1) if all(a is b for a, b in zip(columns[i], columns[j], strict=True))
                )
                same[var] = eqn.outvars[first]
    return [same.get(var, var) if isinstance(var, Hashable) else var for var in jaxpr.outvars]


_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2", "cond", "custom_jvp_call")
"""What returns what its bodies do."""


def _bodies(eqn: Any) -> Iterator[Jaxpr]:
    for param in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda p: isinstance(p, ClosedJaxpr | Jaxpr)):
        if isinstance(param, ClosedJaxpr | Jaxpr):
            yield param.jaxpr if isinstance(param, ClosedJaxpr) else param
