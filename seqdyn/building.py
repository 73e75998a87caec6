"""What parts build, checked before anything is compiled: a part of the wrong kind, a `build` that takes or returns
something else, a function that asks Python for a number that is known only when it runs."""

import contextlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental.xla_metadata import set_xla_metadata

from seqdyn.parts import check_structure, is_part, lenient, part, within
from seqdyn.types import ConfigError


def check_part(where: str, value: Any, method: str) -> None:
    """Raises ConfigError where `value`, of the field `where`, is no part with that method."""
    if isinstance(value, type):
        raise ConfigError(f"{where} is the class {value.__name__}; it must be one of it, {value.__name__}(…).")
    if callable(value) and not is_part(value):
        right = "return it from the" if method == "build" else "call it in the"
        raise ConfigError(f"{where} is the function {called(value)}; {right} {method}() of a part.")
    check_structure(where, value)
    if not is_part(value):
        raise ConfigError(f"{where} is {value!r:.80}; it must be a part.")
    if not callable(getattr(value, method, None)):
        raise ConfigError(f"{where} is {type(value).__name__}, which has no {method}(); it must have one.")
    seen = {"record": "a context", "measure": "a look", "value": "what is seen"}
    if method in seen and not takes(getattr(value, method), None):
        given = inspect.signature(getattr(value, method))
        raise ConfigError(
            f"{where} is {type(value).__name__}, whose {method} takes {given}; it must take {seen[method]}."
        )


@part
class Function:
    """What a function of a module becomes where a part is asked for that builds one, as in `Spec(loss=huber)`."""

    made: Any

    def build(self) -> Any:
        """The function."""
        return self.made


def as_part(where: str, value: Any) -> Any:
    """A function as the part that builds it; anything else as it is. Raises ConfigError for a function that no module
    has by its name."""
    if is_part(value) or isinstance(value, type) or not callable(value):
        return value
    check_structure(where, value)
    return Function(value)


def called(one: Any) -> str:
    """What a part or a function is called in a sentence."""
    if isinstance(one, Function):
        return called(one.made)
    return type(one).__name__ if is_part(one) else getattr(one, "__qualname__", f"{one!r:.60}")


def users(value: Any) -> set[type]:
    """The classes of a part and of those within it that are not the library's."""
    return {type(one) for one in within(value) if is_part(one) and not type(one).__part_name__.startswith("seqdyn:")}


def check_alone(value: Any) -> None:
    """Raises ConfigError for a part, or one within it, whose methods read variables of a function around the class,
    and for two classes of one name: they would be one experiment."""
    names = [str(cls.__part_name__) for cls in users(value)]  # type: ignore[attr-defined]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name} is the name of two classes, which no manifest tells apart; give one another.")
    methods = [(cls, *of) for cls in users(value) for of in vars(cls).items()]
    for cls, name, method in methods:
        code: Any = getattr(method, "__code__", None)
        free = [v for v in code.co_freevars if v != "__class__"] if code and not name.startswith("__") else []
        if free:
            raise ConfigError(
                f"{name} of {cls.__name__} reads {free[0]!r} of the function around the class; write the class at the "
                "top of a file, and what it needs as fields."
            )


def kind_of(value: Any) -> str:
    """What a value is, in a sentence: an array is one, whether it is NumPy's, JAX's or traced."""
    return f"an array of {value.dtype}" if hasattr(value, "dtype") else f"a {type(value).__name__}"


def is_real(value: Any) -> bool:
    """Is it a real number, or an array of them?"""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return any(jnp.issubdtype(value.dtype, kind) for kind in (np.bool, np.integer, np.floating))
    return isinstance(value, int | float)


def is_wider(new: Any, old: Any) -> bool:
    """Would a cast of `new` to the type of `old` drop an imaginary half, fractions, or all but whether it is 0?"""
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    new_is, old_is = (jnp.result_type(one) for one in (new, old))
    ranks = [[i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind)] for dtype in (new_is, old_is)]
    return all(ranks) and ranks[0] > ranks[1]


def takes(function: Any, *given: Any, keywords: bool = False) -> bool:
    """Can `function` be called with these arguments, and with `keywords` that it asks for? One that does not say what
    it takes, as some of C, can."""
    try:
        signature = inspect.signature(function)
        (signature.bind_partial if keywords else signature.bind)(*given)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def check_function(where: str, function: Any, *given: str, keywords: bool = False) -> None:
    """Raises ConfigError for what is no function, or takes something else than what is `given`, by name."""
    if not callable(function):
        raise ConfigError(f"{where} is {function!r:.80}; it must be a function.")
    if not takes(function, *given, keywords=keywords):
        raise ConfigError(f"{where} takes {inspect.signature(function)}; it must take ({', '.join(given)}).")


_ASKED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _asks(said: str) -> bool:
    """Does an error say that a traced number was a key of a cache, in a shape, or given to what takes Python's?"""
    return "Tracer" in said and bool(re.search(r"unhashable|concrete values|not '?\w*Tracer", said))


_RAISED = "in whose code this was raised"
_KEEPS = (
    "keeps an array of one call for another, in a global or an attribute; it must be computed anew, or be kept in "
    "what is returned."
)
_NO_DERIVATIVE = "differentiation does not work", "callbacks do not support"


@contextlib.contextmanager
def known_at_run_time(name: str) -> Iterator[None]:
    """What a part's functions must not do: ask Python for a number that is known when it runs. An error of their own
    says in a note whose it is."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if isinstance(error, _ASKED) or _asks(str(error)):
            raise ConfigError(
                f"{name}, which asks for the value of a number in Python; use jax.numpy of it (jnp.where for if), or "
                "make it a field that is no number()."
            ) from error
        if isinstance(error, ValueError) and any(words in str(error) for words in _NO_DERIVATIVE):
            said = str(error).partition(". ")[0].rstrip(".")
            raise ConfigError(f"{name}, which JAX cannot differentiate: {said}.") from error
        if isinstance(error, ValueError) and "sorting pytree dictionary keys" in str(error):
            raise ConfigError(f"{name}, which has a dict with keys of several kinds; take words alone.") from error
        if isinstance(error, jax.errors.UnexpectedTracerError):
            raise ConfigError(f"{name}, which {_KEEPS}") from error
        if not any(_RAISED in note for note in getattr(error, "__notes__", ())):  # what is nearest to it says the most
            error.add_note(f"{name}, {_RAISED}.")
        raise


_TRACES = itertools.count()


def check_repeats(name: str, function: Callable[..., Any], *given: Any, outermost: bool = False) -> Any:
    """The jaxpr of a function of what is given.

    Raises ConfigError where the function is another program, or has other constants, when it is traced again: what it
    draws is not its key's, and no run would ever come again. Where no trace is around it, `outermost`, also for a
    function that reads an array of a trace that has ended."""

    def traced(**mark: Any) -> tuple[str, list[Any], Any]:
        with lenient(), set_xla_metadata(**mark):
            made = jax.make_jaxpr(lambda *given: function(*given))(*given)  # of the function itself JAX keeps the first
        consts = [const for const in made.consts if isinstance(const, np.ndarray | jax.Array)]
        if outermost and any(isinstance(const, Tracer) for const in consts):
            raise ConfigError(f"{name} {_KEEPS}")
        known = [c for c in consts if not isinstance(c, Tracer) and not jnp.issubdtype(c.dtype, jax.dtypes.prng_key)]
        return re.sub(r" at 0x[0-9a-f]+", "", str(made.jaxpr)), known, made.jaxpr

    def alike(one: tuple[str, list[Any], Any], other: tuple[str, list[Any], Any]) -> bool:
        (text, consts, _), (again, others, _) = one, other
        pairs = zip(consts, others, strict=False)
        return text == again and len(consts) == len(others) and all(a is b or _same(a, b) for a, b in pairs)

    def anew() -> tuple[str, list[Any], Any]:
        return traced(trace=next(_TRACES))  # under a mark of its own JAX traces what a user has jitted, too

    first, again = traced(), anew()
    # What is made once and kept, as by functools.cache, stands in the first trace alone.
    if not alike(first, again) and not alike(again, anew()):
        raise ConfigError(
            f"{name} gives something else each time that it is called; what is random must be drawn from a key, by "
            "jax.random, or no run would come again."
        )
    return first[-1]


def _same(one: Any, other: Any) -> bool:
    return np.array_equal(one, other, equal_nan=jnp.issubdtype(one.dtype, jnp.inexact))


def built(where: str, part: Any, kind: Any, right: str, *given: Any, method: str = "build") -> Any:
    """What a part builds, by `method`. Raises ConfigError if that is not of the kind, `right` in words."""
    name, build = f"{where} is {called(part)}", getattr(part, method)
    if not takes(build, *given):
        right_input = "inputs" if given else "nothing"
        raise ConfigError(f"{name}, whose {method} takes {inspect.signature(build)}; it must take {right_input}.")
    with lenient(), known_at_run_time(name):
        made = build(*given)
    if not isinstance(made, kind):
        raise ConfigError(f"{name}, whose {method} returns {made!r:.60}; it must return {right}.")
    return made


def other_leaf(tree: Any, is_right: Callable[[Any], bool]) -> str | None:
    """The first array of a tree that is not right, 'int32 at layers/0/w'; None where all are."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_right(leaf):
            at = jax.tree_util.keystr(path, simple=True, separator="/")
            return f"{leaf.dtype} at {at}" if at else str(leaf.dtype)
    return None


def shapes_of(tree: Any) -> Any:
    """The shape of every leaf."""
    return jax.tree.map(jnp.shape, tree)


def types_of(tree: Any) -> Any:
    """The type of every leaf, by name."""
    return jax.tree.map(lambda leaf: str(leaf.dtype), tree)
