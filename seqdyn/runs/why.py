"""Why did a run diverge? The update that broke it, made once more, and what the records say of those before."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from seqdyn.backend import check_settings
from seqdyn.data.check import check
from seqdyn.learn import train
from seqdyn.learn.config import Experiment, Hypers, Spec
from seqdyn.learn.train import TrainState
from seqdyn.measure.broken import Break, first_break
from seqdyn.runs import checkpoint, manifest, records, sweep
from seqdyn.runs.run import abstract
from seqdyn.types import ConfigError, whole

if TYPE_CHECKING:
    import pandas as pd

BEFORE = 20
"""Updates that are shown before the one that broke."""


class Why(NamedTuple):
    """What became of a run that diverged."""

    run: int
    label: str
    update: int
    """The first that was not finite: updates done before it."""
    broke: Break | None
    """What in it; None where it is finite when it is made alone, as another processor's roundings may have it."""
    before: "pd.DataFrame"
    """What was recorded of the updates up to it, a row each."""

    def __str__(self) -> str:
        what = self.broke or "made here again it is finite"
        return f"run {self.run} ({self.label}) broke at update {self.update}: {what}"


def diverged(path: str | Path) -> list[int]:
    """The runs of a run directory that have diverged so far."""
    return np.flatnonzero(records.diverged(records.load(path)).any(axis=1)).tolist()


def why(path: str | Path, run: int, data: Any = None) -> Why | None:
    """Where run `run` of a run directory broke; None if it has not.

    `data` are what the experiment was run on, None for a sampled task. Nothing in the directory changes. Raises
    ConfigError as `seqdyn.restore`, and for data that do not fit.
    """
    import pandas as pd  # takes a second

    run, ds = whole("run", run, 0), records.load(path)
    if run >= ds.sizes["run"]:
        raise ConfigError(f"run is {run}; {path} holds runs 0 to {ds.sizes['run'] - 1}.")
    one = ds.isel(run=run)
    gone = records.diverged(one)
    if not gone.any():
        return None
    update = int(gone.argmax())
    experiment = manifest.experiment(path)
    if experiment.specs[0].dtype == "float64":
        check_settings(double=True)
    place, point = experiment.layout.place(run)
    data = jax.tree.map(jax.numpy.asarray, check(experiment.specs[place], data))
    spec, hypers, state = _frozen(Path(path), experiment, place, point, update, data)
    batch = train.drawn(spec, hypers, data, train.ticket(spec, hypers, data, state.step), state.step)
    shown = [name for name in ("loss", "grad_norm", "clip_scale", "learning_rate") if name in one]
    columns = {name: one[name].values for name in shown}
    norms = one["adjoint_norm"].max("layer").load()
    columns |= {"adjoint_last": norms.values[:, -1], "adjoint_largest": norms.max("time").values}
    rows = np.arange(max(0, update - BEFORE), update + 1)
    before = pd.DataFrame({name: values[rows] for name, values in columns.items()}, index=pd.Index(rows, name="update"))
    return Why(run, str(one["label"].values), update, first_break(spec, hypers, state, batch), before)


def _frozen(
    path: Path, experiment: Experiment, place: int, point: int, update: int, data: Any
) -> tuple[Spec, Hypers, TrainState]:
    """(spec, hypers, the state that update `update` of a run was made of)."""
    tile, row = experiment.layout.holding(place, point)
    runs = jax.tree.map(lambda leaf: leaf[row : row + 1], sweep.tile_runs(experiment, tile))
    programs = sweep.programs(experiment.specs[place], 1)
    found = checkpoint.latest(checkpoint.of_tile(path, tile.index), abstract(experiment, tile))
    if found is None:
        raise ConfigError(f"{path} has no checkpoint of this run yet; ask again when it has.")
    states = jax.tree.map(lambda leaf: leaf[row : row + 1], found[1])
    while np.asarray(states.alive).all() and int(states.step[0]) <= update:  # what was recorded after it was saved
        states, _ = programs.chunk(runs, states, data, experiment.chunk)
    state = jax.tree.map(lambda leaf: leaf[0], states)._replace(
        step=jax.numpy.int32(update), alive=jax.numpy.bool_(True)
    )
    one = jax.tree.map(lambda leaf: leaf[0], runs)
    return one.spec, one.hypers, state
