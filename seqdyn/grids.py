"""A grid: one spec whose numbers are [r], a value for each run.

An axis is named by the end of a number's path: of `layers[0].u.gain`, 'gain' where that means one thing, 'u.gain' or
the whole path where it does not.
"""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.parts import Range, is_many, is_part, listed, within
from seqdyn.types import ConfigError

SEED = "numbers.seed"
SEEDS = ("seed", SEED)
"""Paths of what is crossed as `seeds`, of `Numbers` and of a `Spec`."""


def grid(spec: Any, seeds: Any = 1, **axes: Any) -> Any:
    """The Cartesian product of the named values: the spec, its numbers [r]. Seeds vary fastest; `seeds` is how many,
    from 0 on, or which.

    >>> len(grid(spec, seeds=3, gain=[0.5, 1.0], **{"layers[1].tau": [2.0, 10.0]}).seed)
    12

    Layers that differ in nothing but their place take an axis together. Raises ConfigError for a name that is the end
    of no path, or of several; for an axis without values, and for values that the number refuses.
    """
    there = numbers(spec)
    seed = next((path for path in SEEDS if path in there), None)
    if seed is None:
        raise ConfigError(f"grid has a {type(spec).__name__}; it takes a part with a number 'seed'.")
    if {*SEEDS} & axes.keys():
        raise ConfigError("grid has no axis 'seed'; it takes seeds, how many or which.")
    given = {name: listed(values) for name, values in axes.items()} | {seed: listed(seeds)}
    hit_by = {name: hit(name, there) for name in given}
    for name, values in given.items():
        called = "seed" if name == seed else name
        if not values:
            raise ConfigError(f"{called} has no values; give at least one.")
        allowed = there[hit_by[name][0]][0]
        for value in values:
            check(called, allowed, value)
        given[name] = [int(value) if allowed.whole else value for value in values]
        if is_many(seeds) or name != seed:
            check_once(called, given[name], np.dtype(getattr(spec, "dtype", "float32")) == np.float64)
    if not is_many(seeds):
        if seeds < 1:
            raise ConfigError(f"seeds is {seeds!r}; it must be at least one, or a list of seeds.")
        given[seed] = list(range(given[seed][0]))
    taken: dict[str, str] = {}
    for name, paths in hit_by.items():
        for path in paths:
            if path in taken:
                raise ConfigError(f"grid has '{taken[path]}' and '{name}', which are both {path}; give one of them.")
            taken[path] = name
    points = list(itertools.product(*given.values()))
    columns = dict(zip(given, map(np.asarray, zip(*points, strict=True)), strict=True))
    swept = spread(spec, len(points), {path: columns[name] for path, name in taken.items()})
    check_together(swept)
    return swept


def check_once(field: str, values: Sequence[Any], double: bool = False) -> None:
    """Raises ConfigError for a value that stands twice, as numbers of 32 bits or `double`: it would make each of its
    runs twice, and count them so."""
    trained = [value if double or isinstance(value, int) else float(np.float32(value)) for value in values]
    counts = Counter(trained)
    twice = next((value for value, one in zip(values, trained, strict=True) if counts[one] > 1), None)
    if twice is not None:
        raise ConfigError(f"{field} has {twice!r} twice; it must name each value once.")


def as_shapes(tree: Any) -> Any:
    """The numbers of parts as shapes: for what is checked before anything has a value."""
    return mapped(tree, lambda _, allowed, value: jax.ShapeDtypeStruct((), jnp.int32 if allowed.whole else jnp.float32))


def spread(spec: Any, count: int, columns: Mapping[str, Any]) -> Any:
    """A spec whose numbers are [count]: those of `columns`, by path, the others repeated."""

    def column(path: str, _: Range, value: Any) -> Any:
        if path not in columns and np.ndim(value):
            raise ConfigError(
                f"{path} has {np.size(value)} values in the spec; name it as an axis of the grid instead."
            )
        return columns[path] if path in columns else np.full(count, value)

    return mapped(spec, column)


def check(name: str, allowed: Range, value: Any) -> None:
    """Raises ConfigError for a value that a number cannot have."""
    right = allowed.refuses(value)
    if right:
        raise ConfigError(f"{name} is {value!r:.80}; it must be {right}.")


def check_together(spec: Any) -> None:
    """What parts, whose numbers are [r], say of numbers that are right each alone: of each run's, as of one that has
    them from the start."""
    for part in within(spec):
        if is_part(part) and hasattr(part, "check"):
            _check_rows(part)


def _check_rows(part: Any) -> None:
    values = [np.asarray(value).tolist() for _, value in numbers(part).values()]
    for i in {row: i for i, row in enumerate(zip(*values, strict=True))}.values():
        mapped(part, lambda _, __, value, i=i: value[i].item()).check()


def absent(spec: Any) -> dict[str, str]:
    """name -> class of every number of the parts of a spec that is None there, which is structure."""
    return {
        f.name: type(part).__name__
        for part in within(spec)
        if is_part(part)
        for f in dataclasses.fields(part)
        if "number" in f.metadata and getattr(part, f.name) is None
    }


def ends(name: str, there: Mapping[str, Any]) -> list[str]:
    """The paths that `name` is the end of; itself where it is one."""
    if name in there:
        return [name]
    return [path for path in there if f".{path}".endswith(f".{name}") or f".{_placeless(path)}".endswith(f".{name}")]


def hit(name: str, there: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths that an axis means. Raises ConfigError for none, and for several."""
    found = ends(name, there)
    if not found:
        raise ConfigError(
            f"grid has no axis '{name}'; it takes seeds and {', '.join(p for p in there if p not in SEEDS)}."
        )
    if len({_placeless(path) for path in found}) > 1:
        raise ConfigError(f"the axis '{name}' is {', '.join(found)}; say more of the path of the one that is meant.")
    return tuple(found)


def _placeless(path: str) -> str:
    return re.sub(r"\[\d+\]", "", path)


def numbers(spec: Any) -> dict[str, tuple[Range, Any]]:
    """path -> (what it may be, its value) of every number of a part and of the parts below."""
    found: dict[str, tuple[Range, Any]] = {}

    def see(path: str, allowed: Range, value: Any) -> Any:
        found[path] = allowed, value
        return value

    mapped(spec, see)
    return found


def mapped(spec: Any, change: Callable[[str, Range, Any], Any], at: str = "") -> Any:
    """The same parts with `change(path, range, value)` in the place of each number."""
    if isinstance(spec, tuple):
        return tuple(mapped(value, change, f"{at}[{i}]") for i, value in enumerate(spec))
    if not is_part(spec):
        return spec
    new = object.__new__(type(spec))  # no check: what `change` makes need not be a number
    for f in dataclasses.fields(spec):
        value, path = getattr(spec, f.name), f"{at}.{f.name}".lstrip(".")
        is_number = "number" in f.metadata and value is not None
        object.__setattr__(
            new, f.name, change(path, f.metadata["number"], value) if is_number else mapped(value, change, path)
        )
    return new


def arrays(spec: Any, real: Any = jnp.float32) -> Any:
    """The same parts with JAX arrays for numbers, int32 where they are whole, `real` elsewhere: of one type whatever
    was given, for a weak type is another program."""
    return mapped(spec, lambda _, allowed, value: jnp.asarray(value, jnp.int32 if allowed.whole else real))
