"""The same for a tile of the grid: `lax.map` over groups of `width` vmapped runs, one single-device program.

At width 1 (a CPU) a run's bits do not depend on its companions, nor on which probes look at it: a run in a grid is the
run alone, bit for bit. An accelerator takes the whole tile at once. Tiles are padded to one size, so numbers and grids
of any length share a program per spec.
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.backend import compiled
from seqdyn.layout import Tile
from seqdyn.learn import train
from seqdyn.learn.config import Experiment, Spec
from seqdyn.learn.probe_config import ProbeConfig
from seqdyn.learn.train import TrainState
from seqdyn.measure import flossing, probes
from seqdyn.types import Metrics


def tile_runs(experiment: Experiment, tile: Tile) -> Spec:
    """[tile] runs on the host; padding repeats the first run."""
    rows = np.asarray([*tile.runs, *[tile.runs[0]] * (experiment.tile - len(tile.runs))])
    return experiment.runs[tile.spec].at(rows).arrays()


def width(experiment: Experiment) -> int:
    """Runs per group of a tile: 1 on a CPU, all of them on an accelerator.

    There an update waits for launches, not for arithmetic: an LSTM of the main job's sizes (T 100, B 16, H 32) takes an
    H100 3.0 ms alone, 3.2 as 18 runs, 3.6 as 72, 5.4 as 288; a tile should hold all the runs of a spec.
    """
    return 1 if jax.default_backend() == "cpu" else experiment.tile


def _over(width: int, function: Any, *args: Any) -> Any:
    if width > 1:
        return jax.lax.map(lambda a: function(*a), args, batch_size=width)
    # XLA takes a loop of one turn, and axes of length 1, apart, and then rounds elsewhere: a run alone would not be the
    # run in a grid. So it gets a companion, which is idle.
    alone = jax.tree.leaves(args)[0].shape[0] == 1
    done = jax.lax.map(lambda a: function(*a), tuple(map(_accompanied, args)) if alone else args)
    return jax.tree.map(lambda leaf: leaf[:1], done) if alone else done


def _accompanied(rows: Any) -> Any:
    """One row twice; of a state, the second no longer running."""
    two = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), rows)
    return two._replace(alive=jnp.stack([rows.alive[0], False])) if isinstance(rows, TrainState) else two


class Programs(NamedTuple):
    """The compiled functions of all specs of one structure, over a tile."""

    init: Any
    """(runs, real, data, given=None) -> states, which start from the parameters that are given: see `train.init`. Runs
    that are not `real` (padding) start dead and cost nothing at width 1."""
    chunk: Any
    """(runs, states, data, updates, until=None) -> (states, metrics [run, step, …]): see `train.chunk`."""
    evaluate: Any
    """(runs, states, data) -> metrics [run]"""
    update_early_stopping: Any
    """(runs, states, metrics [run]) -> (states, metrics [run]) of early stopping"""


def programs(spec: Spec, width: int) -> Programs:
    """One jitted function of each kind per (structure of the spec, width), shared by every tile: its numbers are
    arguments."""
    return _programs(jax.tree.structure(spec), width)


@cache
def _programs(structure: Any, width: int) -> Programs:
    def init(runs: Spec, real: jax.Array, data: Any, given: Any = None) -> TrainState:
        states = _over(width, lambda r: flossing.init(r, data, given), runs)
        return states._replace(alive=states.alive & real)

    def chunk(runs: Spec, states: TrainState, data: Any, updates: int, until: Any = None) -> tuple[TrainState, Metrics]:
        return _over(width, lambda r, s: train.chunk(r, s, data, updates, until), runs, states)

    def evaluate(runs: Spec, states: TrainState, data: Any) -> Metrics:
        return _over(width, lambda r, s: train.evaluate(r, s, data), runs, states)

    def update_early_stopping(runs: Spec, states: TrainState, metrics: Metrics) -> tuple[TrainState, Metrics]:
        return _over(width, lambda r, s, m: train.update_early_stopping(r, s, m), runs, states, metrics)

    return Programs(
        compiled(init), compiled(chunk, static_argnums=3), compiled(evaluate), compiled(update_early_stopping)
    )


def part(programs: Programs, runs: Spec, states: TrainState, data: Any, chunk: int, stop: int) -> Any:
    """(states, metrics [run, step, …]) of the first updates of a chunk, those before update `stop`: by one program,
    wherever it is cut, and with the bits of the whole chunk."""
    start = int(np.asarray(states.step)[0])
    states, metrics = programs.chunk(runs, states, data, chunk, jnp.int32(stop))
    return states, jax.tree.map(lambda leaf: np.asarray(leaf)[:, : stop - start], metrics)


def measure(spec: Spec, width: int, looking: ProbeConfig) -> Any:
    """(runs, states, data) -> what each probe sees of every run, compiled like training itself.

    A program for each probe: what one sees does not depend, in its last bits, on which others look.
    """
    each = probe_programs(spec, width, looking)
    return lambda *given: {name: seen for program in each for name, seen in program(*given).items()}


def probe_programs(spec: Spec, width: int, looking: ProbeConfig) -> list[Any]:
    """The programs of `measure`, probe by probe."""
    return [_probe_program(jax.tree.structure(spec), width, looking._replace(probes=(one,))) for one in looking.probes]


@cache
def _probe_program(structure: Any, width: int, looking: ProbeConfig) -> Any:
    def seen(runs: Spec, states: TrainState, data: Any) -> Any:
        return _over(width, lambda r, s: probes.measure(r, looking, s, data), runs, states)

    return compiled(seen)


def stopped(states: TrainState) -> np.ndarray:
    """[tile] bool: which runs early stopping has ended."""
    kept = states.stopping
    return np.zeros(states.alive.shape, bool) if kept is None else np.asarray(kept.stopped)


def real(experiment: Experiment, tile: Tile) -> jax.Array:
    """[tile] bool: which rows are runs and not padding."""
    return jnp.arange(experiment.tile) < len(tile.runs)
