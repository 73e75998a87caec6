"""What is new in a run directory after a chunk of updates, and who hears of it while it trains."""

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from seqdyn.backend import check_settings
from seqdyn.layout import Layout, Tile
from seqdyn.parts import is_many
from seqdyn.runs import records
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Chunk:
    """Some updates of some runs, just recorded: what `on_chunk` is called with."""

    path: Path
    """The run directory."""
    runs: range
    """The numbers of the runs: those of a tile."""
    start: int
    """Updates done before."""
    stop: int
    """Updates done now."""
    looks: range
    """The looks that are new, by number: the first is before the first update."""
    whole: Callable[[], "xr.Dataset"] = field(repr=False, compare=False)
    """The records of the directory, opened once, lazy."""

    def load(self) -> "xr.Dataset":
        """The records of these updates and looks as `seqdyn.load` has them; lazy, nothing is read until it is asked
        for."""
        runs, looks = (slice(of.start, of.stop) for of in (self.runs, self.looks))
        return self.whole().isel(run=runs, step=slice(self.start, self.stop), probe=looks)


_SAID = "From on_chunk, after update"


def from_listener(error: BaseException) -> bool:
    """Was it raised by what heard of a chunk?"""
    return any(note.startswith(_SAID) for note in getattr(error, "__notes__", ()))


class Listeners:
    """The callables that hear of each chunk, one call at a time whichever devices train."""

    def __init__(self, on_chunk: Any, path: Path, layout: Layout) -> None:
        """Raises ConfigError for what cannot be called with one chunk."""
        given: Any = [] if on_chunk is None else on_chunk
        self._each = [*given] if is_many(given) and not callable(given) else [given]
        for each in self._each:
            _check(each)
        self._path, self._layout, self._lock = path, layout, threading.Lock()
        self._whole = functools.cache(lambda: records.load(path))  # opened once: it finds what is written afterwards

    def hear(self, tile: Tile, start: int, stop: int) -> BaseException | None:
        """Tells all of a tile's newest updates. What one of them raises ends the training, once that is safe: it is
        returned."""
        if not self._each:
            return None
        numbers, every = self._layout.numbers(tile), self._layout.probe_every
        looks = range(start // every + 1 if start else 0, stop // every + 1)
        new = Chunk(self._path, range(numbers.start, numbers.stop), start, stop, looks, self._whole)
        with self._lock:
            try:
                for each in self._each:
                    each(new)
                self._check_settings()
            except BaseException as raised:  # sys.exit() is a way to say that it is enough
                raised.add_note(
                    f"{_SAID} {stop:,} of runs {new.runs.start} to {new.runs.stop - 1}. Nothing is "
                    f"lost: what was trained is saved in {self._path}, and the same command goes on from there."
                )
                return raised
        return None

    def _check_settings(self) -> None:
        try:
            check_settings(jax.config.values["jax_enable_x64"])  # the lane's own, which nobody sets
        except ConfigError as error:
            raise ConfigError(f"on_chunk has set JAX in another way: {error}") from None

    def close(self) -> None:
        """The training has ended, whatever ended it: calls `close()` of those that have one. What one of them raises is
        raised once all are closed."""
        with contextlib.ExitStack() as ends:
            for each in self._each:
                if callable(close := getattr(each, "close", None)):
                    ends.callback(close)


def _check(given: Any) -> None:
    right, said = "it must be a function of one chunk, or a list of such", " ".join(repr(given).split())
    if not callable(given):
        raise ConfigError(f"on_chunk is {said:.60}; {right}.")
    if inspect.iscoroutinefunction(given) or inspect.isgeneratorfunction(given):
        raise ConfigError(f"on_chunk is {said:.60}, whose call would only begin it; {right}.")
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):  # of some built-in functions nobody knows
        return
    try:
        signature.bind(None)
    except TypeError:
        raise ConfigError(f"on_chunk is {said:.60}, which takes {signature}; {right}.") from None
