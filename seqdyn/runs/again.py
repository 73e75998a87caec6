"""The states of a run directory at any update: the nearest that is there, and the updates from it made again.

What there is are checkpoints, what `Experiment.keep` has kept, and the state before the first update, which the
experiment and its `init` decide.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.backend import check_settings
from seqdyn.data.check import check_all
from seqdyn.layout import Tile
from seqdyn.learn.config import Experiment
from seqdyn.runs import checkpoint, kept, manifest, starts, sweep
from seqdyn.runs.run import abstract
from seqdyn.types import Tree


class Again(NamedTuple):
    """A tile of a run directory, or one run of it, and what its updates are made with."""

    path: Path
    experiment: Experiment
    tile: Tile
    rows: slice
    """Those of the tile that are made again: on a CPU a run has its bits alone, too."""
    programs: Any
    runs: Any
    data: Any

    def near(self, step: int) -> tuple[int, Any]:
        """(update, states) of what is nearest to, and not after, `step` updates."""
        for at in [n for n in there(self.path, self.tile) if n <= step]:
            found = self.at(at)
            if found is not None:
                return at, found
        noted = manifest.read(self.path)
        given = starts.kept(self.path, noted, None)(self._spec) if "init" in noted else None
        real = sweep.real(self.experiment, self.tile)[self.rows]
        return 0, self.programs.init(self.runs, real, self.data, given)

    def at(self, step: int) -> Any:
        """The states there are after `step` updates; None if they are damaged or not there."""
        like, found = abstract(self.experiment, self.tile), None
        marks = checkpoint.marks(sweep.tile_runs(self.experiment, self.tile))
        if step in kept.steps(kept.of_tile(self.path, self.tile.index)):
            found = kept.read(kept.of_tile(self.path, self.tile.index), step, like, marks)
        if found is None and step in checkpoint.steps(checkpoint.of_tile(self.path, self.tile.index)):
            found = checkpoint.restore(checkpoint.of_tile(self.path, self.tile.index), step, like, of=marks)
        if found is None:
            return None
        if found.stopping is not None:  # a look may have ended runs: what they did until then is asked for here
            going = jnp.zeros_like(found.stopping.stopped)
            found = found._replace(stopping=found.stopping._replace(stopped=going))
        return jax.tree.map(lambda leaf: leaf[self.rows], found)

    def onwards(self, states: Any, stop: int) -> Any:
        """The states after `stop` updates, by those from where they are."""
        length = self.experiment.chunk
        while (step := int(np.asarray(states.step)[0])) < stop:
            if step % length == 0 and step + length <= stop:
                states, _ = self.programs.chunk(self.runs, states, self.data, length)
            else:
                end = min(stop, step - step % length + length)
                states, _ = sweep.part(self.programs, self.runs, states, self.data, length, end)
        return states

    @property
    def _spec(self) -> Any:
        return self.experiment.specs[self.tile.spec]


def there(path: Path, tile: Tile) -> list[int]:
    """After how many updates a directory has states of a tile, newest first."""
    kept_there = kept.steps(kept.of_tile(path, tile.index))
    return sorted({*checkpoint.steps(checkpoint.of_tile(path, tile.index)), *kept_there}, reverse=True)


def checked(experiment: Experiment, data: Tree) -> Tree:
    """The data that an experiment was run on. Raises ConfigError if they do not fit it, and if JAX is set otherwise."""
    check_settings(experiment.specs[0].dtype == "float64")
    return jax.tree.map(jnp.asarray, check_all(experiment.specs, data))


def of_tile(path: Path, experiment: Experiment, tile: Tile, data: Tree, row: int | None = None) -> Again:
    """A tile of a run directory, or of one of its rows at least that."""
    width = sweep.width(experiment)
    rows = slice(row, row + 1) if width == 1 and row is not None else slice(0, experiment.tile)
    runs = jax.tree.map(lambda leaf: leaf[rows], sweep.tile_runs(experiment, tile))
    return Again(path, experiment, tile, rows, sweep.programs(experiment.specs[tile.spec], width), runs, data)
