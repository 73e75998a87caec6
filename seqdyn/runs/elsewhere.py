"""A run directory of a training loop that is not ours: the records of one run, written as the loop goes on."""

import contextlib
import math
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqdyn.layout import layout
from seqdyn.learn.config import Experiment, experiment_from
from seqdyn.learn.spec import Spec
from seqdyn.numbers import check_number
from seqdyn.runs import manifest
from seqdyn.runs.environment import environment
from seqdyn.runs.lock import held
from seqdyn.runs.records import Store
from seqdyn.types import ConfigError, as_path, whole

SECONDS = 5.0
"""What a kill may lose: about so long a stretch of updates is written at once."""
_OPEN: dict[Path, "Directory"] = {}


def _close_all() -> None:
    for directory in list(_OPEN.values()):
        directory.close()


# Not by `atexit`, which comes after the end of the threads that zarr writes with, and of all others.
threading._register_atexit(_close_all)  # type: ignore[attr-defined]


class Directory:
    """`path`, new or empty, of a run of at most `updates` updates, tested at most every `probe_every` of them.

    What is known of the run goes into its manifest: the words of a `Spec`, the numbers of `Numbers`; numbers that are
    not said are NaN. `seqdyn.load` opens it from the first stretch on. Raises ConfigError for another path, or for a
    number that is none of `Numbers` or that cannot be; RuntimeError if another process writes there.
    """

    def __init__(self, path: Any, updates: Any, probe_every: int, numbers: Mapping[str, Any]) -> None:
        self.path = as_path("path", path, "that of a new directory").absolute()  # wherever the loop goes
        self.updates, self.probe_every = whole("updates", updates), probe_every
        known: dict[str, Any] = Experiment("", Spec(), updates=1).describe()
        for name, value in numbers.items():
            if name not in known["hypers"]:
                raise ConfigError(f"{name} is {value!r}; the numbers of a run are {', '.join(known['hypers'])}.")
            check_number(name, value)
        said = {name: "nan" for name in known["hypers"]} | {k: _plain(v) for k, v in numbers.items()}
        self._known: dict[str, Any] = known | {"hypers": {name: [value] for name, value in said.items()}}
        manifest.make_place(self.path)
        self._lock = contextlib.ExitStack()
        self._claim()
        self._store: Store | None = None
        self._names: tuple[str, ...] = ()
        self._rows: list[Mapping[str, Any]] = []
        self._tests: dict[int, float] = {}
        self._done, self._since, self._over = 0, 0.0, False
        self.before_writing: Callable[[], None] = lambda: None
        """Called before rows are written: what was added may be completed until then."""
        _OPEN[self.path] = self

    def _claim(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(held(self.path))
        if (self.path / manifest.NAME).exists():
            self._lock.close()
            raise ConfigError(f"{self.path} holds a run; it must be new, or empty: records are not written over.")

    def describe(
        self,
        words: Mapping[str, Any],
        gain: float,
        names: tuple[str, ...],
        notes: Mapping[str, Any],
        versions: Mapping[str, str],
        error: float | None,
    ) -> None:
        """What the first update has shown: the words of the run's `Spec`, the gain of its recurrent matrices, which of
        `records.VARIABLES` there are, and how far our gradient is from the loop's own, if it is known."""
        known = self._known
        self._names, self._versions, self._error = names, dict(versions), error
        self._layers = len(words["hidden"]) * (2 if words["bidirectional"] else 1)
        self._since = time.monotonic()  # what came before was spent on compiling
        said = {"specs": [known["specs"][0] | dict(words)], "name": words["name"] or words["cell"]}
        numbers = known["hypers"] | ({"gain": [gain]} if known["hypers"]["gain"] == ["nan"] else {})
        self._known = known | said | {"hypers": numbers, "tile": 1, "probes": [], "settings": dict(notes)}

    def add(self, row: Mapping[str, Any]) -> None:
        """The records [layer, time] or [time] or single of the next update; those that are left out are missing.

        They may be put into `row` later: see `before_writing`.
        """
        made = self._done + len(self._rows) + 1
        if made > self.updates:
            if not self._over:
                warnings.warn(
                    f"updates is {self.updates}; what the loop does after them is not recorded.", stacklevel=3
                )
            self._over = True
            return
        self._rows.append(row)
        if self._store is not None:
            due = len(self._rows) >= self._store.layout.chunk
        else:
            due = time.monotonic() - self._since >= SECONDS
        if self.described and (due or made == self.updates):
            self._write()

    def test(self, done: int, loss: float) -> None:
        """The loss on held-out examples after `done` updates, at the next probe from there, or the last."""
        number = min(-(-done // self.probe_every), self.updates // self.probe_every)
        self._tests[number] = loss
        if self._store is not None:
            self._write_tests(self._store)

    def close(self) -> None:
        """Writes what is left, and lets go of the directory; so does the end of the process."""
        _OPEN.pop(self.path, None)
        if self._rows and self.described:
            self._write()
        self._lock.close()

    @property
    def described(self) -> bool:
        """Is it known what is recorded?"""
        return bool(self._names)

    def _write(self) -> None:
        self.before_writing()
        store = self._store = self._store or self._begun(len(self._rows))
        rows, self._rows = self._rows, []
        metrics = {}
        for name in {name for row in rows for name in row}:
            at = [i for i, row in enumerate(rows) if name in row]
            values = np.asarray([rows[i][name] for i in at])
            if len(at) < len(rows):
                given, values = values, np.full((len(rows), *values.shape[1:]), np.nan)
                values[at] = given
            metrics[name] = values[None]
        store.write(store.layout.tiles[0], self._done, metrics)
        self._done += len(rows)
        self._write_tests(store)

    def _write_tests(self, store: Store) -> None:
        tests, self._tests = self._tests, {}
        for number, loss in tests.items():
            store.write(store.layout.tiles[0], number, {"test_loss": np.asarray([loss])})

    def _begun(self, chunk: int) -> Store:
        described = self._known | {"updates": self.updates, "chunk": chunk, "probe_every": self.probe_every}
        noted = {"format": manifest.FORMAT, "experiment": described, "config": {}, "verified": {}, "resumed_on": []}
        noted |= environment(experiment_from(described))
        noted["versions"] |= self._versions
        if self._error is not None:
            noted["verified"] = {experiment_from(described).specs[0].label: self._error}
        manifest.write(self.path, noted)
        store = Store(self.path / "records.zarr", layout(described))
        store.create(self._names, {"layer": list(range(self._layers))})
        manifest.write(self.path, noted | {"records": store.digest()})
        return store


def _plain(value: Any) -> float | int | str:
    number = value.item() if isinstance(value, np.generic) else value
    return str(number) if isinstance(number, float) and math.isinf(number) else number
