"""`Spec`: what code runs, of words and of users' parts that fit each other."""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from seqdyn import grids, parts
from seqdyn.fields import Fields
from seqdyn.learn import precision
from seqdyn.learn.fitted import fitted
from seqdyn.numbers import FIELDS, Numbers, check_number
from seqdyn.types import ConfigError

DECIDED = ("steps", "hidden")
"""The fields that parts decide."""


@parts.registered
@dataclass(frozen=True, eq=False)
class Spec(Fields):
    """What code runs: shapes and operations. Two specs of other structure are two compiled programs.

    NumPy's whole numbers, truth values and strings become Python's, and lists become tuples, so that what is equal is
    the same program. Task, optimiser, clip, schedule and cells may be a user's parts (`learn.fitted`), whose numbers
    are leaves of this pytree, as `numbers` are: others compile nothing. In a grid they are [r], a value for each run.
    """

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)
        for f in dataclasses.fields(self):
            put(f.name, parts.plain(getattr(self, f.name)))
        if not isinstance(self.numbers, Numbers):
            raise ConfigError(f"numbers is {self.numbers!r:.80}; it must be seqdyn.Numbers(…).")
        for f in FIELDS:
            value = getattr(self.numbers, f.name)
            if isinstance(value, list | tuple):
                right = f"a number; several are crossed by grid(spec, {f.name}=…)"
                raise ConfigError(f"numbers.{f.name} is {value!r:.80}; it must be {right}.")
            if isinstance(value, bool | int | float | str | dict):  # arrays are a grid's, or in a trace
                check_number(f"numbers.{f.name}", value)
        for pair in self.decided if isinstance(self.decided, tuple) else (self.decided,):
            if not isinstance(pair, tuple) or len(pair) != 2 or pair[0] not in DECIDED:
                raise ConfigError(f"decided is {self.decided!r:.80}; it is made of the parts, so leave it out.")
            if getattr(self, pair[0]) == pair[1]:
                put(pair[0], getattr(Spec, pair[0]))
        found = fitted(self)
        for name, value in found.items():
            put(name, value)
        put("decided", tuple((name, found[name]) for name in DECIDED if name in found))

    def __eq__(self, other: object) -> bool:
        """The same structure and the same numbers, of a grid, too."""
        if type(other) is not type(self):
            return NotImplemented
        ours, structure = jax.tree.flatten(self)
        theirs, other_structure = jax.tree.flatten(other)
        pairs = zip(ours, theirs, strict=True) if structure == other_structure else ((0, 1),)
        return all(a is b or np.array_equal(a, b) for a, b in pairs)

    def __hash__(self) -> int:
        return hash((self.name, self.steps, self.batch, self.hidden))

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, index: Any) -> "Spec":
        """One run, or a slice of them, of a grid."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def arrays(self) -> "Spec":
        """With JAX leaves, int32 where they are whole, elsewhere of the type of the parameters."""
        return grids.arrays(self, precision.trained(self.dtype))

    def having(self, **numbers: Any) -> "Spec":
        """With these of its `numbers`, unchecked: they may be arrays, in a trace, too."""
        new = copy.copy(self)
        object.__setattr__(new, "numbers", dataclasses.replace(self.numbers, **numbers))
        return new


def is_grid(spec: Spec) -> bool:
    """Has it a value for each run?"""
    return np.ndim(spec.numbers.seed) == 1


def check_one(spec: Spec) -> None:
    """Raises ConfigError for the numbers of several runs."""
    if is_grid(spec):
        raise ConfigError(f"spec has the numbers of {len(spec)} runs; give those of one, spec.at(i).")


def unnumbered(spec: Spec) -> Spec:
    """Without numbers of its own, where all specs of an experiment share them."""
    return spec.having(**vars(Numbers()))


def share_numbers(runs: Sequence[Spec]) -> bool:
    """Have all these specs, or grids, the same `numbers`?"""
    first = vars(runs[0].numbers)
    return all(np.array_equal(value, first[name]) for one in runs for name, value in vars(one.numbers).items())
