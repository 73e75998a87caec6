"""Why did a run diverge? The update that broke it, and those before it, made once more."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from seqdyn.backend import check_settings
from seqdyn.data.check import check
from seqdyn.layout import Tile
from seqdyn.learn import network, train
from seqdyn.learn.config import Experiment, Spec
from seqdyn.learn.train import TrainState
from seqdyn.measure.broken import Break, first_break
from seqdyn.runs import again, checkpoint, manifest, records, sweep
from seqdyn.runs.replay import replay
from seqdyn.runs.run import abstract
from seqdyn.types import ConfigError, whole

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

BEFORE = 20
"""Updates that are shown before the one that broke."""
REACH = 1000
"""At most so many updates are made again before those: what is further from any state is shown as it was recorded."""


class Why(NamedTuple):
    """What became of a run that diverged."""

    run: int
    label: str
    update: int
    """The first that was not finite: updates done before it."""
    broke: Break | None
    """What in it; None where it is finite when it is made alone, as another processor's roundings may have it."""
    before: "pd.DataFrame"
    """The updates up to it, a row each: what was recorded and, where they were made again, the largest ‖h_t‖ and log₂
    of the largest ‖λ_t‖ of an example, and where that is."""
    shown: str
    """How: made again, or from the records and why."""
    closely: "xr.Dataset | None" = None
    """Those updates as `seqdyn.replay` has them, with their batches; None where they were not made again."""

    def __str__(self) -> str:
        what = self.broke or "made here again it is finite"
        return f"run {self.run} ({self.label}) broke at update {self.update}: {what}"


def diverged(path: str | Path) -> list[int]:
    """The runs of a run directory that have diverged so far."""
    return np.flatnonzero(records.diverged(records.load(path)).any(axis=1)).tolist()


def why(path: str | Path, run: int, data: Any = None, before: int = BEFORE) -> Why | None:
    """Where run `run` of a run directory broke, with the `before` updates before that; None if it did not break.

    These updates are made again, bit for bit, if there is a state to begin from: one that `Experiment.keep` kept, or
    the start of the run within 1,000 updates. Otherwise, and if `before` is 0, there is what was recorded, and
    `Why.shown` says so. `data` are what the experiment was run on, None for a sampled task. Nothing in the directory
    changes. Raises ConfigError as `seqdyn.restore`, and for data that do not fit.
    """
    import pandas as pd  # takes a second

    before, number = whole("before", before, 0), run
    path, run = manifest.holding(path, number)
    one = records.alone(path).isel(run=run)
    gone = records.diverged(one)
    if not gone.any():
        return None
    update = int(gone.argmax())
    experiment = manifest.experiment(path)
    if experiment.specs[0].dtype == "float64":
        check_settings(double=True)
    place, point = experiment.layout.place(run)
    given, data = data, jax.tree.map(jax.numpy.asarray, check(experiment.specs[place], data))
    spec, state = _frozen(path, experiment, place, point, update, data)
    batch = train.sample(spec, data, train.batch_index(spec, data, state.step), state.step)
    shown = [name for name in ("loss", "grad_norm", "clip_scale", "learning_rate") if name in one]
    columns = {name: one[name].values for name in shown}
    norms = one["adjoint_norm"].max("layer").load()
    columns |= {"adjoint_last": norms.values[:, -1], "adjoint_largest": norms.max("time").values}
    rows = np.arange(max(0, update - before), update + 1)
    tile, _ = experiment.layout.holding(place, point)
    shown, closely = _closely(path, tile, run, rows, given, spec) if before else ("from the records", None)
    table = pd.DataFrame({name: values[rows] for name, values in columns.items()}, index=pd.Index(rows, name="update"))
    if closely is not None:
        table = table.join(_largest(closely, [] if spec.network is None else [*network.scans(spec).values()]))
    broke = first_break(spec, state, batch)
    return Why(int(number), str(one["label"].values), update, broke, table, shown, closely)


def _closely(
    path: Path, tile: Tile, run: int, rows: np.ndarray, data: Any, spec: Spec
) -> tuple[str, "xr.Dataset | None"]:
    """(what is shown, the updates made again, if they can be)."""
    start, stop = int(rows[0]), int(rows[-1]) + 1
    near = max((n for n in again.there(path, tile) if n <= start), default=0)
    if start - near > REACH:
        return (
            f"from the records, as the nearest state is that after {near} updates; seqdyn.replay makes them again from "
            "there, and Experiment.keep keeps nearer ones"
        ), None
    names = [*(["h"] if spec.network is None else []), "example_adjoint_norm", "example_adjoint_log_norm", "xs", "ys"]
    recorded = ["loss", "grad_norm", "clip_scale"]
    try:
        found = replay(path, run, start, stop, [*names, *recorded], data)
    except (ConfigError, RuntimeError) as error:
        return f"from the records: {str(error).rstrip('.')}", None
    return f"made again from the state after {near} updates", found


def _largest(seen: "xr.Dataset", scans: list[int]) -> "pd.DataFrame":
    """Of each update, over layers, steps and examples; Inf and NaN are larger than any number. `scans` are the steps of
    each scan of a network, whose end lies at the end of time."""
    import pandas as pd

    found = {}
    if "h" in seen:
        h = np.asarray(seen["h"].values, np.float64)
        width = ~np.isnan(h).all(axis=(0, 2, 3), keepdims=True)  # without what a narrower layer lacks
        found["h_largest"] = np.sqrt((np.where(width, h, 0) ** 2).sum(-1)).reshape(len(h), -1).max(axis=1)
    logs = seen["example_adjoint_log_norm"].transpose("update", "layer", "time", "example").values
    logs = np.where(np.isnan(logs), np.inf, logs)
    for i, steps in enumerate(scans):
        logs[:, i, : logs.shape[2] - steps] = -np.inf
    places = [np.unravel_index(one.argmax(), one.shape) for one in logs]
    found["adjoint_log2"] = logs.reshape(len(logs), -1).max(axis=1)
    found["at_layer"], found["at_step"], found["at_example"] = (list(map(int, of)) for of in zip(*places, strict=True))
    return pd.DataFrame(found, index=pd.Index(seen["update"].values, name="update"))


def _frozen(
    path: Path, experiment: Experiment, place: int, point: int, update: int, data: Any
) -> tuple[Spec, TrainState]:
    """(spec, the state that update `update` of a run was made of)."""
    tile, row = experiment.layout.holding(place, point)
    of_tile = sweep.tile_runs(experiment, tile)
    runs = jax.tree.map(lambda leaf: leaf[row : row + 1], of_tile)
    programs = sweep.programs(experiment.specs[place], 1)
    directory, like = checkpoint.of_tile(path, tile.index), abstract(experiment, tile)
    found = checkpoint.latest(directory, like, of=checkpoint.marks(of_tile))
    if found is None:
        raise ConfigError(f"{path} has no checkpoint of this run yet; ask again when it has.")
    states = jax.tree.map(lambda leaf: leaf[row : row + 1], found[1])
    while np.asarray(states.alive).all() and int(states.step[0]) <= update:  # what was recorded after it was saved
        states, _ = programs.chunk(runs, states, data, experiment.chunk)
    state = jax.tree.map(lambda leaf: leaf[0], states)._replace(
        step=jax.numpy.int32(update), alive=jax.numpy.bool_(True)
    )
    one = jax.tree.map(lambda leaf: leaf[0], runs)
    return one, state
