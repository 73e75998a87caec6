"""Parts: frozen dataclasses of which an experiment is made, each a pytree and each JSON.

A part's `number()` fields are leaves: a grid sweeps them, and another value compiles nothing. Its fields that hold
parts are branches. All else is structure, which decides code: two structures are two programs. A part *builds* what it
stands for (a cell, a task, an optax transformation) by its method `build`; here is what all parts have in common.
"""

import contextlib
import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import jax
import numpy as np
from jax.core import Tracer
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from seqdyn.documented import fields_in_help
from seqdyn.names import is_found, name_of
from seqdyn.types import ConfigError

Number = Any
"""A number of one run; [r] of the runs of a grid; or traced."""
Part = Any
"""A part; of what kind is checked where it is used."""


class Range(NamedTuple):
    """What a `number` may be."""

    low: float
    high: float
    above: float
    below: float
    whole: bool
    infinite: bool

    def refuses(self, value: Any) -> str | None:
        """What `value` must be, in words; None where it is that."""
        if isinstance(value, bool | np.bool) or not isinstance(value, int | float | np.integer | np.floating):
            return "a whole number" if self.whole else "a number"
        value = _item(value) if isinstance(value, np.generic) else value
        value = max(-(2**128), min(value, 2**128)) if isinstance(value, int) else value  # no float holds 10**400
        if math.isnan(value) or (math.isinf(value) and not (self.infinite and value > 0)):
            return "finite, or inf" if self.infinite else "finite"
        if math.isinf(value):
            return None
        if self.whole and not (value == int(value) and abs(value) < 2**31):
            return "a whole number, below 2³¹ in size"
        if not (self.low <= value <= self.high and self.above < value < self.below):
            ends = {"at least": self.low, "above": self.above, "at most": self.high, "below": self.below}
            return " and ".join(f"{word} {end:g}" for word, end in ends.items() if math.isfinite(end))
        least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
        if value and not least <= abs(value) <= most:
            return f"0 or between {least:.2g} and {most:.2g} in size, as 32-bit floats are"
        return None


def number(
    default: Any = dataclasses.MISSING,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    whole: bool = False,
    infinite: bool = False,
) -> Any:
    """A field of a part that is a number, low ≤ value ≤ high and above < value < below; inf only if `infinite`.

    `whole` ones are int32 when they run, the others float32.
    """
    for end, value in {"low": low, "high": high, "above": above, "below": below}.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ConfigError(f"{end} of a number is {value!r:.40}; it must be a number.")
    least, most = max(low, above), min(high, below)
    if not least <= most:
        raise ConfigError(f"a number is asked to be at least {least:g} and at most {most:g}; some number must be.")
    allowed = Range(low, high, above, below, whole, infinite)
    return dataclasses.field(default=default, metadata={"number": allowed})


PARTS: dict[str, type] = {}
"""The classes that are parts, by the names that manifests have for them, of modules that this process has imported."""
FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""The functions that a part of this process holds or held, by name: no other is looked up for a manifest."""
_CLASSES: set[type] = set()  # a notebook defines a class of one name twice, and both are parts


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def part(cls: Any = None, *, name: str | None = None) -> Any:
    """Makes a class a part: `@part` above it.

    The class is written like a dataclass. Types and ranges of its fields are checked on every new part. If it has a
    `check()`, this is called next, and raises ConfigError for values that do not go together. Two parts are equal if
    they are written alike (`describe`), so a part can be a key of a cache. Manifests call the class 'module:Class', or
    by its `name`; with a `name` it is found again after it has moved to another file.
    """
    if cls is None:
        return lambda cls: part(cls, name=name)
    if not isinstance(cls, type):
        raise ConfigError(f"part has {cls!r:.60}; it must stand above a class.")
    return _part(cls, name)


def _part(cls: type, name: str | None) -> type:
    own = getattr(cls, "__post_init__", None)
    own = getattr(own, "own", own)  # of a part above it, what that wrote

    def __post_init__(self: Any, *others: Any) -> None:
        if others:
            raise ConfigError(f"{type(self).__name__} has an InitVar; make it a field, which a manifest can say.")
        if type(self) not in _CLASSES:
            raise ConfigError(
                f"{type(self).__name__} is no part, though a class above it is; write @part above it, too."
            )
        _check(self)
        if own:
            own(self)
        if hasattr(self, "check"):
            self.check()
        fields = {f.name for f in dataclasses.fields(self)}
        kept = getattr(self, "__dict__", {})
        lost = [n for n in kept if n not in fields and not hasattr(type(self), n)]  # but what is cached
        if lost:
            raise ConfigError(
                f"{type(self).__name__}.{lost[0]} is set beside the fields, and lost; make it a property."
            )

    if "__dataclass_fields__" in vars(cls):
        raise ConfigError(f"{cls.__name__} is a dataclass already; leave @dataclass out, as @part makes it one.")
    __post_init__.own = own
    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    try:
        made: Any = dataclasses.dataclass(frozen=True, eq=False)(cls)
    except (TypeError, ValueError) as error:  # a field without a type, a list as its default
        raise ConfigError(f"{cls.__name__} cannot be a part: {error}.") from error
    made.__eq__ = lambda self, other: type(self) is type(other) and _text(self) == _text(other)
    made.__hash__ = lambda self: hash(_text(self))
    return registered(fields_in_help(made), name)


def registered(made: Any, name: str | None = None) -> Any:
    """Makes a frozen dataclass a part as it stands, with its own checks and equality."""
    made.__part_name__ = name or name_of(made)
    fields = dataclasses.fields(made)
    names, numbers = [f.name for f in fields], {f.name for f in fields if "number" in f.metadata}

    def split(self: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        # By the value, not by the hint: a field of `Init | None` is a branch where it holds a part.
        branches = tuple(n for n in names if n in numbers or _holds_parts(getattr(self, n)))
        return branches, (branches, tuple((n, _keyed(getattr(self, n))) for n in names if n not in branches))

    def flat_with_keys(self: Any) -> Any:
        branches, structure = split(self)
        return [(jax.tree_util.GetAttrKey(n), _branch(getattr(self, n))) for n in branches], structure

    def flat(self: Any) -> Any:
        branches, structure = split(self)
        return [_branch(getattr(self, n)) for n in branches], structure

    def unflat(structure: Any, children: Any) -> Any:
        # Not by __init__: JAX rebuilds trees of tracers, of None and of anything else, which no check would pass.
        self = object.__new__(made)
        for n, v in [*zip(structure[0], children, strict=True), *((n, _unkeyed(v)) for n, v in structure[1])]:
            object.__setattr__(self, n, v)
        return self

    jax.tree_util.register_pytree_with_keys(made, flat_with_keys, unflat, flat)
    for f in fields:
        function: Any = f.default
        if _is_function(function) and is_found(function):
            FUNCTIONS[name_of(function)] = function
    PARTS[made.__part_name__] = made
    _CLASSES.add(made)
    return made


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """Users' functions are traced under JAX's usual promotion, whatever the process has set."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def is_part(value: Any) -> bool:
    """Is it a part, not a class of them?"""
    return type(value) in _CLASSES


def within(value: Any) -> Iterator[Any]:
    """Every part in a part or a tuple, itself included, and every function that they hold."""
    if isinstance(value, tuple):
        for one in value:
            yield from within(one)
    elif is_part(value):
        yield value
        for f in dataclasses.fields(value):
            yield from within(getattr(value, f.name))
    elif _is_function(value):
        yield value


def _holds_parts(value: Any) -> bool:
    return is_part(value) or (isinstance(value, tuple) and any(_holds_parts(v) for v in value))


@jax.tree_util.register_static
class _Word(str):
    """A word beside parts: structure among branches."""


def _branch(value: Any) -> Any:
    mixed = isinstance(value, tuple) and _holds_parts(value)
    return tuple(_Word(one) if isinstance(one, str) else one for one in value) if mixed else value


class _Keyed(NamedTuple):
    """Structure with its type: 1, 1.0 and True are equal, and are not the same code."""

    type: type
    value: Any


def _keyed(value: Any) -> _Keyed:
    return _Keyed(tuple, tuple(map(_keyed, value))) if isinstance(value, tuple) else _Keyed(type(value), value)


def _unkeyed(kept: _Keyed) -> Any:
    return tuple(map(_unkeyed, kept.value)) if kept.type is tuple else kept.value


def _is_function(value: Any) -> bool:
    """A function or a class; jax.nn.relu is an object that has the name of a function."""
    return callable(value) and hasattr(value, "__qualname__") and hasattr(value, "__module__") and not is_part(value)


# --- what is wrong, in one sentence -----------------------------------------------------------------------------


def _check(self: Any) -> None:
    try:
        hints = typing.get_type_hints(type(self))
    except NameError:  # a class made inside a function, of names that are only there
        hints = {}
    for f in dataclasses.fields(self):
        value, where = getattr(self, f.name), f"{type(self).__name__}.{f.name}"
        if "number" in f.metadata:
            _check_number(where, value, f.metadata["number"], f.default)
            continue
        value = plain(value)
        object.__setattr__(self, f.name, value)
        check_structure(where, value)
        right = _mistyped(value, hints.get(f.name, Any))
        if right:
            raise ConfigError(f"{where} is {value!r:.80}; it must be {right}.")
        odd = [v for v in value if not _holds_parts(v)] if isinstance(value, tuple) and _holds_parts(value) else []
        if odd:
            raise ConfigError(f"{where} has {odd[0]!r:.60} beside parts; it must hold parts alone.")


def _check_number(where: str, value: Any, allowed: Range, default: Any) -> None:
    if isinstance(value, Tracer) or (value is None and default is None):
        return
    for one in listed(value) or [value]:
        right = allowed.refuses(one)
        if right:
            raise ConfigError(f"{where} is {one!r:.80}; it must be {right}.")


def is_many(values: Any) -> bool:
    """Is it a list of any kind, not one value?"""
    return (
        isinstance(values, Iterable) and not isinstance(values, str | bytes | dict) and getattr(values, "ndim", 1) > 0
    )


def listed(values: Any) -> list[Any]:
    """One value or many, NumPy's, JAX's or Python's, as a list of Python's."""
    if hasattr(values, "to_pylist"):  # a column of pyarrow, in chunks, too
        values = values.to_pylist()
    plain = values.tolist() if hasattr(values, "tolist") else values
    if not is_many(values) and not is_many(plain):  # what only offers tolist() is many once it is a list
        plain = [plain]
    return [_item(v) if hasattr(v, "item") and np.ndim(v) == 0 else v for v in plain]


def _item(value: Any) -> Any:
    """One number of an array or tensor in Python's own type; that of NumPy's longdouble is a float."""
    item = value.item() if hasattr(value, "item") else np.asarray(value).item()
    return float(item) if isinstance(item, np.floating) else item


def plain(value: Any) -> Any:
    """The same in Python's own types; lists, and arrays of one axis, as tuples. NamedTuples are what they are."""
    if hasattr(value, "_fields") or isinstance(value, Tracer):
        return value
    if isinstance(value, np.generic) or (hasattr(value, "__array__") and np.ndim(value) == 0):
        return _item(value)
    if isinstance(value, list | tuple) or (hasattr(value, "__array__") and np.ndim(value) == 1):
        return tuple(map(plain, value))
    return value


def check_structure(where: str, value: Any) -> None:
    """Raises for what cannot be the key of a program, or cannot be written into a manifest."""
    if type(value) is tuple:
        for i, one in enumerate(value):
            check_structure(f"{where}[{i}]", one)
    elif is_part(value) or value is None or isinstance(value, bool | int | str):
        return
    elif isinstance(value, float):
        if math.isnan(value):
            raise ConfigError(f"{where} is nan; it must be a number.")
    elif hasattr(value, "update") and hasattr(value, "init"):
        raise ConfigError(
            f"{where} is an optax transformation; return it from the build() of a part, whose numbers it has."
        )
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        raise ConfigError(
            f"{where} is a {type(value).__name__}, which is no part; write @part above its class, or make it in a "
            "method of a part, as a module of Flax."
        )
    elif _is_function(value):
        if not is_found(value):
            raise ConfigError(
                f"{where} is {value.__qualname__}, which no module has by that name; write it as a function at the top "
                "of a file, with its numbers as fields of the part."
            )
        FUNCTIONS[name_of(value)] = value
    else:
        raise ConfigError(
            f"{where} is {value!r:.60}, a {type(value).__name__}; it must be a number, a word, a part, a function of a "
            "module, or a tuple of these."
        )


def _mistyped(value: Any, hint: Any) -> str | None:
    """What a value must be by its hint, in words; None where it is that."""
    if isinstance(value, bool) and hint in (int, float):  # Python takes True for a number
        return _worded(hint)
    if hint is list or get_origin(hint) is list:  # a list is kept as a tuple
        hint = tuple[*(get_args(hint) or (Any,)), ...]
    try:
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        return _worded(hint)
    return None


def _worded(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin in (Union, types.UnionType):
        return " or ".join(map(_worded, args))
    if origin is tuple:
        return f"a tuple, each {_worded(args[0])}" if args[1:] == (...,) else "a tuple"
    if origin is Callable:
        return "a function"
    if hint in (np.ndarray, jax.Array):
        return "annotated as a tuple, which an array becomes"
    words = {int: "a whole number", str: "a word", bool: "True or False", float: "a number", type(None): "None"}
    return words.get(hint, f"a {getattr(hint, '__name__', hint)}")


# --- as JSON ----------------------------------------------------------------------------------------------------


def describe(value: Any) -> Any:
    """A part as JSON: {"part": its name, its fields}; a function {"function": its name}; a number that differs between
    the runs of a grid {"runs": […]}, one that does not as itself; infinity, which JSON lacks, {"float": "inf"}."""
    if is_part(value):
        described = {"part": type(value).__part_name__}
        for f in dataclasses.fields(value):
            v, allowed = getattr(value, f.name), f.metadata.get("number")
            described[f.name] = _number(v, allowed) if allowed and v is not None else describe(v)
        return described
    if isinstance(value, tuple):
        return [describe(v) for v in value]
    return {"function": name_of(value)} if _is_function(value) else _finite(value)


def _number(value: Any, allowed: Range) -> Any:
    plain = [int(v) if allowed.whole else float(v) for v in listed(value)]  # 1 and 1.0 are one number
    return _finite(plain[0]) if len(set(plain)) == 1 else {"runs": [_finite(v) for v in plain]}


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return {"float": str(value)} if isinstance(value, float) and math.isinf(value) else value


def _text(value: Any) -> str:
    return json.dumps(describe(value))
