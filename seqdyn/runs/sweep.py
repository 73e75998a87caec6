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
from seqdyn.learn.config import Experiment, Hypers, Looking, Spec
from seqdyn.learn.train import TrainState
from seqdyn.measure import flossing, probes
from seqdyn.types import Metrics


def tile_hypers(experiment: Experiment, tile: Tile) -> Hypers:
    """[tile] hypers on the host; padding repeats the first run."""
    rows = np.asarray([*tile.runs, *[tile.runs[0]] * (experiment.tile - len(tile.runs))])
    return experiment.hypers.at(rows).arrays()


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
    """The compiled functions of one spec, over a tile."""

    init: Any
    """(hypers, real, data) -> states; runs that are not `real` (padding) start dead and cost nothing at width 1."""
    chunk: Any
    """(hypers, states, data, updates) -> (states, metrics [run, step, …])"""
    evaluate: Any
    """(hypers, states, data) -> metrics [run]"""
    looked: Any
    """(hypers, states, metrics [run]) -> (states, metrics [run]) of early stopping"""


@cache
def programs(spec: Spec, width: int) -> Programs:
    """One jitted function of each kind per (spec, width), shared by every tile."""

    def init(hypers: Hypers, real: jax.Array, data: Any) -> TrainState:
        states = _over(width, lambda h: flossing.init(spec, h, data), hypers)
        return states._replace(alive=states.alive & real)

    def chunk(hypers: Hypers, states: TrainState, data: Any, updates: int) -> tuple[TrainState, Metrics]:
        return _over(width, lambda h, s: train.chunk(spec, h, s, data, updates), hypers, states)

    def evaluate(hypers: Hypers, states: TrainState, data: Any) -> Metrics:
        return _over(width, lambda h, s: train.evaluate(spec, h, s, data), hypers, states)

    def looked(hypers: Hypers, states: TrainState, metrics: Metrics) -> tuple[TrainState, Metrics]:
        return _over(width, lambda h, s, m: train.looked(spec, h, s, m), hypers, states, metrics)

    return Programs(compiled(init), compiled(chunk, static_argnums=3), compiled(evaluate), compiled(looked))


def look(spec: Spec, width: int, looking: Looking) -> Any:
    """(hypers, states, data) -> what each probe sees of every run, compiled like training itself.

    A program for each probe: what one sees does not depend, in its last bits, on which others look.
    """
    each = [_look(spec, width, looking._replace(probes=(name,))) for name in looking.probes]
    return lambda *given: {name: seen for program in each for name, seen in program(*given).items()}


@cache
def _look(spec: Spec, width: int, looking: Looking) -> Any:
    def seen(hypers: Hypers, states: TrainState, data: Any) -> Any:
        return _over(width, lambda h, s: probes.look(spec, looking, h, s, data), hypers, states)

    return compiled(seen)


def stopped(states: TrainState) -> np.ndarray:
    """[tile] bool: which runs early stopping has ended."""
    kept = states.stopping
    return np.zeros(states.alive.shape, bool) if kept is None else np.asarray(kept.stopped)


def real(experiment: Experiment, tile: Tile) -> jax.Array:
    """[tile] bool: which rows are runs and not padding."""
    return jnp.arange(experiment.tile) < len(tile.runs)
