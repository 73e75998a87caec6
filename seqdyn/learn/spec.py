"""`Spec`: what code runs, of words and of users' parts that fit each other."""

import dataclasses
from dataclasses import dataclass
from functools import partial

from seqdyn import parts
from seqdyn.fields import Fields
from seqdyn.learn.fitted import fitted
from seqdyn.types import ConfigError

DECIDED = ("steps", "hidden")
"""The fields that parts decide."""


@parts.registered
@dataclass(frozen=True)
class Spec(Fields):
    """What code runs: shapes and operations. Two specs of other structure are two compiled programs.

    NumPy's whole numbers, truth values and strings become Python's, and lists become tuples, so that what is equal is
    the same program. Task, optimiser, clip, schedule and cells may be a user's parts (`learn.fitted`), whose numbers
    are the leaves of this pytree: other numbers compile nothing.
    """

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)
        for f in dataclasses.fields(self):
            put(f.name, parts.plain(getattr(self, f.name)))
        for pair in self.decided if isinstance(self.decided, tuple) else (self.decided,):
            if not isinstance(pair, tuple) or len(pair) != 2 or pair[0] not in DECIDED:
                raise ConfigError(f"decided is {self.decided!r:.80}; it is made of the parts, so leave it out.")
            if getattr(self, pair[0]) == pair[1]:
                put(pair[0], getattr(Spec, pair[0]))
        found = fitted(self)
        for name, value in found.items():
            put(name, value)
        put("decided", tuple((name, found[name]) for name in DECIDED if name in found))
