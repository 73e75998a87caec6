"""Links of the chain from a gradient to an update: what a user's part builds, checked, and one after the other."""

import contextlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.building import (
    built,
    called,
    check_function,
    is_real,
    is_wider,
    kind_of,
    known_at_run_time,
    shapes_of,
    takes,
)
from seqdyn.parts import lenient
from seqdyn.types import Array, ConfigError, Float, Int, Key, Tree


class At(NamedTuple):
    """Where an update stands."""

    step: Int[Array, ""]
    """Updates done before it."""
    norm: Callable[[Tree], Float[Array, ""]]
    """‖g‖ of a tree like the parameters, without an embedding that is frozen."""
    decayed: Callable[[Tree], Tree]
    """Of each array of such a tree, is it one of the matrices that decay (`Spec.penalised`)?"""
    grads: Tree
    """What the first link is given."""
    objective: Callable[[Tree], Float[Array, ""]]
    """params -> loss and penalties on the update's batch, an embedding that is frozen where it is"""
    unfrozen: Callable[[Tree], Tree]
    """Of a tree like the parameters what is trained: 0 in an embedding that is frozen"""
    key: Callable[[], Key[Array, ""]]
    """A key of this run and this update, the same for all links. One that `build` makes is the same for all seeds."""


class Rule(NamedTuple):
    """A link at work: an optax transformation that is told where it stands, and reports.

    A part's `build()` returns it, or an optax.GradientTransformation. Trees are those of the parameters.
    """

    init: Callable[[Tree], Any]
    """params -> what it remembers, () if that is nothing"""
    update: Callable[[Tree, Any, Tree, At], tuple[Tree, Any, dict[str, Float[Array, ""]]]]
    """(updates, memory, params, `At`) -> (updates, memory, reports), reports a dict of any of `REPORTS`"""


def forgetful(params: Tree) -> tuple[()]:
    """The `init` of the library's links that remember nothing."""
    return ()


REPORTS = ("clip_scale", "clipped", "learning_rate")
"""What a link may say of an update: ‖after‖ / ‖before‖, the share that clipping changed, the rate."""


def chained(rules: Sequence[Rule]) -> Rule:
    """One after the other, as `optax.chain`. Clip scales multiply, of the shares clipped it is the largest, and of the
    rates the last."""
    lasting = [r for r in rules if r.init is not forgetful]

    def init(params: Tree) -> Any:
        kept = tuple(r.init(params) for r in lasting)
        return kept[0] if len(kept) == 1 else kept

    def update(updates: Tree, state: Any, params: Tree, at: At) -> Any:
        kept, after, said = iter((state,) if len(lasting) == 1 else state), [], {}
        for r in rules:
            updates, new, more = r.update(updates, next(kept) if r in lasting else (), params, at)
            after += [new] if r in lasting else []
            if {"clip_scale"} <= said.keys() & more.keys():
                more = more | {"clip_scale": said["clip_scale"] * more["clip_scale"]}
            if {"clipped"} <= said.keys() & more.keys():
                more = more | {"clipped": jnp.maximum(said["clipped"], more["clipped"])}
            said |= more
        return updates, after[0] if len(lasting) == 1 else tuple(after), said

    return Rule(init, update)


OFFERED = ("value", "grad", "value_fn")
"""What a loop of optax may tell an update beside the gradient."""


@contextlib.contextmanager
def _asked_by_optax(name: str) -> Iterator[None]:
    """ConfigError for what optax itself raises within, as of `lookahead`, whose parameters are two sets, or `sam`,
    which calls for a gradient elsewhere. A user's own errors are raised as they are."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        frames = [
            str(of.f_globals.get("__name__")).partition(".")[0] for of, _ in traceback.walk_tb(error.__traceback__)
        ]
        called = frames[max(0, frames.index("optax") - 1) :] if "optax" in frames else ["a user's own"]
        if {*called} - {"optax", "seqdyn", "jax", "jaxlib"} - sys.stdlib_module_names:  # a user's code called optax
            raise
        why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ConfigError(
            f"{name}, which optax refuses here ({why}); it must fit these parameters and add its updates to them, and "
            f"may ask for {', '.join(OFFERED)}."
        ) from error


def made_link(where: str, part: Any) -> Rule:
    """A link whose memory has definite types, and keeps them; its keys are numbers, as a checkpoint has them.

    A transformation of optax that needs or names them is given `value`, `grad` and `value_fn`, as in a loop of optax:
    the objective on the batch, its gradient, and params -> objective (line searches, Polyak's step, a rate that falls
    on a plateau). Its `update` raises ConfigError where the rule wants more, gives other shapes, or reports what is no
    report.
    """
    import optax

    name = f"{where} is {type(part).__name__}"
    kinds = (optax.GradientTransformation, optax.MultiSteps, Rule)
    made = built(where, part, kinds, "an optax.GradientTransformation or a seqdyn.Rule")
    made = made.gradient_transformation() if isinstance(made, optax.MultiSteps) else made
    more = ("where it stands",) if isinstance(made, Rule) else ()
    check_function(f"{name}, whose init", made.init, "params")
    check_function(f"{name}, whose update", made.update, "updates", "memory", "params", *more, keywords=True)
    named = [key for key in inspect.signature(made.update).parameters if key in OFFERED and not more]

    def cast(new: Any, old: Any) -> Array:
        return jnp.asarray(new).astype(old.dtype)

    def is_key(leaf: Any) -> bool:
        return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)

    def numbers(leaf: Any) -> Array:
        if not (isinstance(leaf, jax.Array) or is_real(leaf) or np.iscomplexobj(leaf)):
            raise ConfigError(f"{name}, whose memory has {leaf!r:.60}; it must be numbers.")
        leaf = jnp.asarray(leaf)
        return jax.random.key_data(leaf) if is_key(leaf) else cast(leaf, leaf)

    def init(params: Tree) -> Any:
        with _asked_by_optax(name), lenient(), known_at_run_time(name):
            return jax.tree.map(numbers, made.init(params))

    def moved(updates: Tree, state: Any, params: Tree, at: At, **asked: Any) -> Any:
        given = (at,) if isinstance(made, Rule) else ()
        found = made.update(updates, state, params, *given, **asked)
        right = 3 if isinstance(made, Rule) else 2
        if not isinstance(found, tuple) or len(found) != right:
            what = f"{len(found)} in a {type(found).__name__}" if isinstance(found, tuple | list) else kind_of(found)
            raise ConfigError(f"{name}, whose update returns {what}; it must return a tuple of {right}.")
        return found if right == 3 else (*found, {})

    def update(updates: Tree, state: Any, params: Tree, at: At) -> Any:
        with _asked_by_optax(name), lenient(), known_at_run_time(name):
            like = jax.eval_shape(lambda p: jax.tree.map(jnp.asarray, made.init(p)), params)
            given = jax.tree.map(
                lambda of, leaf: jax.random.wrap_key_data(leaf) if is_key(of) else leaf,
                like,
                state,
            )

            def told(names: Sequence[str]) -> Any:
                all_of = at.objective(params), at.unfrozen(at.grads), at.objective
                asked = {key: one for key, one in zip(OFFERED, all_of, strict=True) if key in names}
                return moved(at.unfrozen(updates), given, params, at, **asked)

            try:
                new, after, said = told(named) if named else moved(updates, given, params, at)
            except TypeError as error:
                if "required keyword" not in str(error) or isinstance(made, Rule):
                    raise
                try:
                    new, after, said = told(OFFERED)  # through a chain, which names nothing
                except TypeError as again:
                    if "keyword" not in str(again):
                        raise
                    raise ConfigError(f"{name}, whose update needs more than {', '.join(OFFERED)}: {again}.") from again
        if jax.tree.structure(new) != jax.tree.structure(updates) or shapes_of(new) != shapes_of(updates):
            raise ConfigError(f"{name}, whose updates have the shapes {shapes_of(new)}; they must be the parameters'.")
        if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(new)):
            raise ConfigError(f"{name}, whose updates are complex; they must be real numbers.")
        if jax.tree.structure(after) != jax.tree.structure(given) or shapes_of(after) != shapes_of(given):
            raise ConfigError(
                f"{name}, whose memory goes from the shapes {shapes_of(given)} to {shapes_of(after)}; it must not."
            )
        for old, kept in zip(jax.tree.leaves(given), jax.tree.leaves(after), strict=True):
            if is_wider(kept, old):
                types = f"{jnp.result_type(old)} to {jnp.result_type(kept)}"
                raise ConfigError(
                    f"{name}, whose memory goes from {types}, which it cannot hold; begin with the latter."
                )
        known = isinstance(said, dict) and {*said} <= {*REPORTS}
        if not known or not all(is_real(value) and jnp.shape(value) == () for value in said.values()):
            raise ConfigError(
                f"{name}, which reports {said!r:.80}; it must be a dict of {', '.join(REPORTS)}, real scalars."
            )
        said = {key: jnp.asarray(value).astype(jnp.float32) for key, value in said.items()}
        return jax.tree.map(cast, new, updates), jax.tree.map(lambda n, o: cast(numbers(n), o), after, state), said

    return Rule(forgetful if made.init is forgetful else init, update)


def made_clip(where: str, part: Any) -> Rule:
    """A link that reports what it leaves of the gradient, if it does not say itself: clip_scale, ‖after‖ / ‖before‖,
    and clipped, the share of the entries that are not 0 which it changed."""
    made = made_link(where, part)

    def update(grads: Tree, state: Any, params: Tree, at: At) -> Any:
        after, state, said = made.update(grads, state, params, at)
        size, left = at.norm(grads), at.norm(after)
        pairs = list(zip(jax.tree.leaves(grads), jax.tree.leaves(after), strict=True))
        some = sum(jnp.sum(g != 0).astype(jnp.float32) for g, _ in pairs)
        changed = sum(jnp.sum((g != 0) & (g != a)).astype(jnp.float32) for g, a in pairs)
        seen = {
            "clip_scale": jnp.where(size > 0, left / jnp.where(size > 0, size, 1), 1),
            "clipped": changed / jnp.maximum(some, 1),
        }
        return after, state, seen | said

    return Rule(made.init, update)


def factor(where: str, part: Any, step: Int[Array, ""]) -> Float[Array, ""]:
    """What a schedule makes of the rate after `step` updates. Raises ConfigError where that is no number."""
    name = f"{where} is {called(part)}"
    right = "a function of the number of updates done"
    function = built(where, part, Callable, right)  # type: ignore[arg-type]
    if not takes(function, step):
        raise ConfigError(f"{name}, which is or builds {function!r:.60}; it must be, or build, {right}.")
    with lenient(), known_at_run_time(name):
        found = function(step)
        if not is_real(found) or jnp.shape(found):
            what = f"the shape {jnp.shape(found)}" if is_real(found) else f"{found!r:.60}"
            raise ConfigError(f"{name}, whose function gives {what}; it must give one number.")
        return jnp.asarray(found).astype(jnp.float32)
