"""The live progress of a run: runs, updates a second, loss, how many diverged, time left; on a terminal a map of
‖∂L/∂h_t‖ over lag and update, too."""

import importlib.util
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from seqdyn.layout import Tile
from seqdyn.learn.config import Experiment
from seqdyn.runs.lag_map import ASCII, SHADES, LagMap

LINE_SECONDS = 15.0
"""Between lines where there is no terminal to draw on."""


def plain_console(**options: Any) -> Console:
    """A console that shows text as it is: brackets are no markup, colons no emoji, numbers have no colour."""
    return Console(markup=False, emoji=False, highlight=False, **options)


def table(rows: Sequence[Mapping[str, str]], **look: Any) -> Table:
    """Rows that share their keys, which stand above them."""
    drawn = Table(*(rows[0] if rows else ()), box=None, **look)
    for row in rows:
        drawn.add_row(*row.values())
    return drawn


def draws(console: Console) -> bool:
    """Can what was said be drawn over? On a terminal, and in a notebook that has widgets."""
    if console.is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    return console.is_terminal and not console.is_dumb_terminal


class _Bar(Progress):
    """A bar, and the lines below it."""

    below = Text()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.below:
            yield self.below


class Display:
    """A bar and a map on what can be drawn over, else a plain line now and then, and one at the end. Used as a
    context; `at` may be called from any thread."""

    def __init__(self, experiment: Experiment, console: Console, tiles: Sequence[Tile], first: int = 0) -> None:
        """`first` is the number of the experiment's first run."""
        self._experiment, self._console, self._first = experiment, console, first
        self._runs = sum(len(tile.runs) for tile in tiles)
        self._total = self._runs * experiment.updates
        text = (
            "{task.percentage:3.0f}%  {task.fields[rate]}  loss {task.fields[loss]}  {task.fields[diverged]} diverged"
        )
        self._utf = console.encoding.startswith("utf")
        self._bar = _Bar(
            SpinnerColumn("dots" if self._utf else "line"),
            TextColumn(f"{self._runs} runs"),
            BarColumn(),
            TextColumn(text),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not draws(console),
        )
        self._task = self._bar.add_task("", total=self._total, rate="compiling", loss="–", diverged=0, left="")
        self._steps: dict[int, int] = {}
        self._diverged: dict[int, int] = {}
        self._maps: dict[int, LagMap] = {}
        self._shown: Tile | None = None
        self._made, self._begun, self._said = 0, 0.0, time.monotonic()
        self._line = ""
        self._lock = threading.Lock()

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()
        self._say()

    def at(self, tile: Tile, step: int, alive: np.ndarray, metrics: Mapping[str, Any] | None = None) -> None:
        """Tile `tile` has done `step` updates; `metrics` [run, update, …] are the records of its newest, None where it
        takes up work."""
        with self._lock:
            self._at(tile, step, alive, metrics)

    def _at(self, tile: Tile, step: int, alive: np.ndarray, metrics: Mapping[str, Any] | None) -> None:
        runs, now = len(tile.runs), time.monotonic()
        alive = alive[:runs]
        before, self._steps[tile.index] = self._steps.get(tile.index, 0), step * runs
        self._diverged[tile.index] = int((~alive).sum())
        done, diverged = sum(self._steps.values()), sum(self._diverged.values())
        self._bar.update(self._task, completed=done, diverged=diverged)
        if metrics is None:
            self._begun = self._begun or now
            return
        self._made += step * runs - before
        rate = self._made / max(now - self._begun, 1e-9)
        left = f"{(self._total - done) / rate:.0f} s left"
        loss = np.asarray(metrics["loss"])[:runs, -1]
        there = loss[np.isfinite(loss)]  # a run that was stopped has none any more
        said = f"{np.median(there):.3g}" if there.size else "–"
        self._bar.update(self._task, rate=f"{rate:,.0f} updates/s", loss=said, left=left)
        self._line = f"{done / self._total:4.0%}  {rate:,.0f} updates/s  loss {said}  {diverged} diverged  {left}"
        if self._bar.disable and now - self._said > LINE_SECONDS:
            self._say()
        elif not self._bar.disable and "adjoint_norm" in metrics:
            self._draw(tile, step, np.asarray(metrics["adjoint_norm"])[:runs, :, 0])

    def _say(self) -> None:
        """The newest line, where nothing is drawn."""
        if self._bar.disable and self._line:
            self._console.print(self._line)
            self._line, self._said = "", time.monotonic()

    def _draw(self, tile: Tile, step: int, norms: np.ndarray) -> None:
        """`norms` [run, update, time] of the lowest layer. Of tiles that train at once the map stays with one until
        that has done its last update."""
        e, shown = self._experiment, self._shown
        if tile.index not in self._maps:
            numbers, label = e.layout.numbers(tile), e.specs[tile.spec].label
            symbol, shades = ("‖∂L/∂h_t‖", SHADES) if self._utf else ("norm of dL/dh_t", ASCII)
            start, stop = (self._first + number for number in (numbers.start, numbers.stop))
            title = f"{symbol} of {label}: median of runs {start} to {stop - 1}"
            self._maps[tile.index] = LagMap(title, e.updates, norms.shape[2], shades)
        self._maps[tile.index].put(step, norms)
        if shown is None or self._steps[shown.index] == e.updates * len(shown.runs):
            self._shown = tile
        if self._shown == tile:
            self._bar.below = Text("\n".join(self._maps[tile.index].lines()), no_wrap=True, overflow="crop")
