"""The live progress of a run: runs, updates a second, loss, how many diverged, time left."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from seqdyn.layout import Tile
from seqdyn.learn.config import Experiment

LINE_SECONDS = 15.0
"""Between lines where there is no terminal to draw on."""


def plain_console(**options: Any) -> Console:
    """A console that shows text as it is: brackets are no markup, colons no emoji, numbers have no colour."""
    return Console(markup=False, emoji=False, highlight=False, **options)


class Display:
    """A bar on a terminal, else a line now and then. Used as a context; `at` may be called from any thread."""

    def __init__(self, experiment: Experiment, console: Console, tiles: Sequence[Tile]) -> None:
        self._experiment, self._console = experiment, console
        self._runs = sum(len(tile.runs) for tile in tiles)
        self._total = self._runs * experiment.updates
        text = (
            "{task.percentage:3.0f}%  {task.fields[rate]}  loss {task.fields[loss]}  {task.fields[diverged]} diverged"
        )
        self._progress = Progress(
            SpinnerColumn("dots" if console.encoding.startswith("utf") else "line"),
            TextColumn(f"{self._runs} runs"),
            BarColumn(),
            TextColumn(text),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._progress.add_task("", total=self._total, rate="compiling", loss="–", diverged=0, left="")
        self._steps: dict[int, int] = {}
        self._diverged: dict[int, int] = {}
        self._made, self._begun, self._said = 0, 0.0, time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def at(self, tile: Tile, step: int, alive: np.ndarray, loss: np.ndarray | None = None) -> None:
        """Tile `tile` has done `step` updates; `loss` [run] is that of its newest, None where it takes up work."""
        with self._lock:
            self._at(tile, step, alive, loss)

    def _at(self, tile: Tile, step: int, alive: np.ndarray, loss: np.ndarray | None) -> None:
        runs, now = len(tile.runs), time.monotonic()
        alive = alive[:runs]
        self._steps[tile.index] = step * runs
        self._diverged[tile.index] = int((~alive).sum())
        done, diverged = sum(self._steps.values()), sum(self._diverged.values())
        self._progress.update(self._task, completed=done, diverged=diverged)
        if loss is None:
            self._begun = self._begun or now
            return
        self._made += self._experiment.chunk * runs
        rate = self._made / max(now - self._begun, 1e-9)
        left = f"{(self._total - done) / rate:.0f} s left"
        there = loss[:runs][np.isfinite(loss[:runs])]  # a run that was stopped has none any more
        said = f"{np.median(there):.3g}" if there.size else "–"
        self._progress.update(self._task, rate=f"{rate:,.0f} updates/s", loss=said, left=left)
        if not self._console.is_terminal and now - self._said > LINE_SECONDS:
            self._said = now
            share = f"{done / self._total:4.0%}"
            self._console.print(f"{share}  {rate:,.0f} updates/s  loss {said}  {diverged} diverged  {left}")
