"""`Spec`: what code runs, of words and of users' parts that fit each other."""

import copy
import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from seqdyn import grids, parts
from seqdyn.fields import Fields
from seqdyn.learn import precision
from seqdyn.learn.fitted import fitted
from seqdyn.numbers import Numbers
from seqdyn.types import ConfigError

DECIDED = ("steps", "hidden")
"""The fields that parts decide."""


@parts.registered
@dataclass(frozen=True)
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
        for pair in self.decided if isinstance(self.decided, tuple) else (self.decided,):
            if not isinstance(pair, tuple) or len(pair) != 2 or pair[0] not in DECIDED:
                raise ConfigError(f"decided is {self.decided!r:.80}; it is made of the parts, so leave it out.")
            if getattr(self, pair[0]) == pair[1]:
                put(pair[0], getattr(Spec, pair[0]))
        found = fitted(self)
        for name, value in found.items():
            put(name, value)
        put("decided", tuple((name, found[name]) for name in DECIDED if name in found))

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
