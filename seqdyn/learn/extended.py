"""More runs of an experiment: other values of its numbers, other seeds, and no run twice."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqdyn import grids
from seqdyn.grids import SEED
from seqdyn.learn import precision
from seqdyn.learn.fitted import unheard, unheeded
from seqdyn.learn.spec import Spec
from seqdyn.numbers import Numbers
from seqdyn.parts import is_many, listed
from seqdyn.types import ConfigError


def more(runs: Sequence[Spec], seeds: Any, axes: Mapping[str, Any]) -> list[Spec]:
    """The runs that `runs` lack of their product with these values, spec by spec; specs that lack none are left out.

    Each value of an axis takes the place of that number in every run, at its seed and other numbers, and so does each
    seed: of a grid, the larger grid without the smaller. `runs` may name a spec several times. `seeds` are as `grid`
    takes them, or None; of the seeds 0 … n − 1 of a whole number n, those that are there are left out.

    Raises ConfigError for a name that is no number here, or several, for a value out of range, and for one with which
    there is nothing that is not there.
    """
    given = _given(seeds, axes)
    tables: dict[str, _Table] = {}
    for one in runs:
        tables.setdefault(one.label, _Table(one)).add(one)
    for name in axes:
        heeding = [table for table in tables.values() if grids.ends(name, table.numbers)]
        for table in heeding or tables.values():
            grids.hit(name, table.numbers)
        missing = [table.unheard(name) for table in heeding]
        if missing and all(missing):
            raise ConfigError(
                f"{name} is {axes[name]!r:.60}, and no run would differ by it; it must have {missing[0]}."
            )
    for name, values in given.items():
        before = {label: [*table.rows.values()] for label, table in tables.items()}
        added = {}
        for value in values:
            added[repr(value)] = sum(table.cross(name, value, before[label]) for label, table in tables.items())
            if not added[repr(value)] and (name != SEED or is_many(seeds)):
                called = "seeds" if name == SEED else name
                raise ConfigError(f"{called} has {value!r}, and all runs with it are there; give what is new.")
        if not any(added.values()):
            raise ConfigError(f"seeds is {seeds!r}, and all runs with these seeds are there; give what is new.")
    return [table.made() for table in tables.values() if len(table.rows) > table.old]


def _given(seeds: Any, axes: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Name -> values, in an order that does not depend on how they are written down; seeds last."""
    if not isinstance(axes, Mapping):
        raise ConfigError(f"axes is {axes!r:.60}; it must be a dict of names and values, as dict(gain=[2.0]).")
    if {"seed", "seeds", SEED} & axes.keys():
        raise ConfigError("axes has seeds; give them as seeds=.")
    found = {str(name): listed(axes[name]) for name in sorted(axes, key=str)}
    if seeds is not None:
        found[SEED] = listed(seeds)
    for name, values in found.items():
        if not values:
            raise ConfigError(f"{'seeds' if name == SEED else name} has no values; give at least one.")
    if seeds is not None and not is_many(seeds):
        (count,) = found[SEED]
        grids.check("seeds", Numbers.__dataclass_fields__["seed"].metadata["number"], count)
        found[SEED] = [*range(int(count))]
        if not found[SEED]:
            raise ConfigError(f"seeds is {seeds!r}; it must be at least one, or a list of seeds.")
    return found


class _Table:
    """The runs of one spec, row by row."""

    def __init__(self, like: Spec) -> None:
        self._like, self._nobody = like, unheeded(like)
        self._real = np.dtype(precision.trained(like.dtype))
        self.numbers = grids.numbers(self._heeded(like))
        self.rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        """As they train, and as they were given."""
        self.old = 0

    def _heeded(self, spec: Spec) -> Spec:
        """Without the numbers that nobody heeds."""
        return spec.having(**dict.fromkeys(self._nobody))

    def unheard(self, name: str) -> str | None:
        """What the spec must have to heed a number."""
        return unheard(self._heeded(self._like), name)

    def add(self, runs: Spec) -> None:
        """Runs that are there."""
        columns = [np.asarray(values).tolist() for _, values in grids.numbers(self._heeded(runs)).values()]
        for row in zip(*columns, strict=True):
            self._put(row)
        self.old = len(self.rows)

    def _put(self, row: tuple[Any, ...]) -> bool:
        ranges = [allowed for allowed, _ in self.numbers.values()]
        key = tuple(
            int(value) if allowed.whole else float(self._real.type(value))
            for allowed, value in zip(ranges, row, strict=True)
        )
        new = key not in self.rows
        self.rows.setdefault(key, row)
        return new

    def cross(self, name: str, value: Any, rows: Sequence[tuple[Any, ...]]) -> int:
        """How many runs are new of these with `value` in the place of a number; none where it is no number here."""
        paths = [*self.numbers]
        at = {paths.index(path) for path in grids.ends(name, self.numbers)}
        for i in at:
            grids.check("seeds" if name == SEED else name, self.numbers[paths[i]][0], value)
        value = value.item() if isinstance(value, np.generic) else value
        return sum(self._put(tuple(value if i in at else old for i, old in enumerate(row))) for row in rows if at)

    def made(self) -> Spec:
        """The new ones; those of one setting follow each other."""
        new, seed = [*self.rows.values()][self.old :], [*self.numbers].index(SEED)
        settings: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        for row in new:
            settings.setdefault((*row[:seed], *row[seed + 1 :]), []).append(row)
        rows = [row for of in settings.values() for row in of]
        columns = {
            path: np.asarray([row[i] for row in rows], int if allowed.whole else float)
            for i, (path, (allowed, _)) in enumerate(self.numbers.items())
        }

        spec: Spec = grids.mapped(self._heeded(self._like), lambda path, _, __: columns[path])
        grids.check_together(spec)
        return spec.having(**{name: np.full(len(rows), getattr(Numbers, name)) for name in self._nobody})
