"""The parameters of a run, from a checkpoint or a state that was kept."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.backend import check_settings
from seqdyn.io import parents
from seqdyn.learn.model import Model
from seqdyn.runs import checkpoint, kept, manifest, sweep
from seqdyn.runs.run import abstract
from seqdyn.types import ConfigError, whole


def restore(path: str | Path, run: int, step: int | None = None, best: bool = False) -> Model:
    """The parameters of run `run` of a run directory after `step` updates, by default at its newest checkpoint; or the
    `best` that early stopping had seen by then.

    The directory has the newest two checkpoints of each tile, and what `Experiment.keep` asked for (without the best).
    Raises ConfigError if there is no such run or step, and says which there are; also for the best of a run without
    early stopping.
    """
    out, there = manifest.holding(path, run)
    experiment = manifest.experiment(out)
    if experiment.specs[0].dtype == "float64":
        check_settings(double=True)
    spec, point = experiment.layout.place(there)
    tile, row = experiment.layout.holding(spec, point)
    directory, like = checkpoint.of_tile(out, tile.index), abstract(experiment, tile)
    marks = checkpoint.marks(sweep.tile_runs(experiment, tile))
    if best and like.stopping is None:
        raise ConfigError(f"best is True for run {run} of {path}, whose spec has stop 'none'; it kept no best.")
    others = None if best else kept.of_tile(out, tile.index)
    step = None if step is None else whole("step", step, 0)
    steps = sorted({*checkpoint.steps(directory), *(kept.steps(others) if others else ())})
    found = checkpoint.latest(directory, like, of=marks) if step is None else None
    if step in checkpoint.steps(directory):
        found = (step, checkpoint.restore(directory, step, like, of=marks))
    if step in steps and (found is None or found[1] is None) and others:
        found = (step, kept.read(others, step, like, marks))
    if found is None or found[1] is None:
        if not steps:
            raise ConfigError(f"{path} has only begun: it has no checkpoint of run {run} yet.")
        if step in steps and not best:
            raise ConfigError(
                f"{path} has run {run} after {step} updates in a file that is damaged or of other runs; take another "
                "step."
            )
        what = "its best" if best else "its parameters"
        after = "in a checkpoint yet" if step is None else f"after {step} updates"
        raise ConfigError(f"{path} has no run {run} {after}; {what} are there after {', '.join(map(str, steps))}.")
    params = found[1].stopping.best if best else found[1].params
    one = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[row]), params)  # JAX would compile each row it takes
    return parents.noted(
        one, {"path": str(manifest.directory(path).resolve()), "run": int(run), "step": found[0], "best": best}
    )
