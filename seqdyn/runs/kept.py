"""States that are kept for good: `kept/tile-…/<updates done>.safetensors`, beside the newest two checkpoints.

A file holds the state of every run of a tile, rows of each array, after so many updates and before a look at them: all
that the next update needs, optimiser's moments included, so that it can be made again. The best parameters of early
stopping are left out. Each has a digest of its own, is whole or not there, and is never written over.
"""

import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqdyn.io import safetensors
from seqdyn.learn.config import Experiment
from seqdyn.learn.train import TrainState
from seqdyn.runs.checkpoint import digest, other
from seqdyn.types import ConfigError

SUFFIX = ".safetensors"


def wanted(experiment: Experiment) -> Sequence[int]:
    """The updates of `Experiment.keep`, up to the last."""
    keep, last = experiment.keep, experiment.updates
    if isinstance(keep, int):
        return range(0, last + 1, keep)
    if keep is None:
        return []
    if keep == "log":
        return [0, *itertools.takewhile(lambda n: n <= last, (2**i for i in itertools.count()))]
    return [n for n in keep if n <= last]


def of_tile(out: Path, index: int) -> Path:
    """Where those of tile `index` of a run directory lie."""
    return out / "kept" / f"tile-{index:04d}"


def steps(directory: Path) -> list[int]:
    """The updates whose states a tile has kept, first ones first."""
    found = directory.glob(f"*{SUFFIX}") if directory.exists() else ()
    return sorted(int(path.stem) for path in found if path.stem.isdecimal())


def save(directory: Path, step: int, states: TrainState, of: Mapping[str, str]) -> None:
    """Keeps the states after `step` updates of the runs with the marks `of` (`checkpoint.marks`), if they are not kept.
    Raises OSError if they cannot be written.

    What is there stays, with a warning if these are others, as another processor makes them.
    """
    path, arrays = _path(directory, step), _named(states)
    there, new = _read(path), digest(arrays)
    if there is not None:
        if digest(there[0]) != new:
            warnings.warn(f"{path} has other bits than what is made here, and stays as it is", stacklevel=2)
        return
    path.unlink(missing_ok=True)  # damaged
    try:
        # In one entry: the order of several in a file is not always the same.
        safetensors.write(path, arrays, {"kept": json.dumps({"sha256": new, "of": dict(of)})})
    except Exception as error:  # a full disk, a vanished directory: its writer raises kinds of its own
        raise OSError(f"cannot write {path}: {' '.join(str(error).split())}") from error


def read(directory: Path, step: int, like: TrainState, of: Mapping[str, str] | None = None) -> TrainState | None:
    """What was kept after `step` updates, with the structure, shapes and types of `like`; None if it is damaged, not
    there or, with a warning, of runs with other marks than `of`. In the place of the best of early stopping are the
    parameters."""
    path, paths = _path(directory, step), _paths(like)
    found, theirs = _read(path) or (None, {})
    if found is not None and (another := other(theirs, of)):
        warnings.warn(f"passed over {path}: it is of runs with another {another}", stacklevel=2)
        return None
    if found is None or {name: (leaf.shape, leaf.dtype) for name, leaf in found.items()} != {
        name: (leaf.shape, leaf.dtype) for name, leaf in paths.items()
    }:
        return None
    bare = jax.tree.unflatten(jax.tree.structure(_bare(like)), [jax.numpy.asarray(found[name]) for name in paths])
    if like.stopping is None:
        return bare
    return bare._replace(stopping=bare.stopping._replace(best=bare.params))


def whole_until(directory: Path, asked: Sequence[int], step: int) -> int:
    """Up to which update, `step` at most, a checkpoint may be gone on from so that all that is asked for is kept."""
    lost = next((n for n in asked if n <= step and _read(_path(directory, n)) is None), None)
    return step if lost is None else lost - 1


def sweep_up(directory: Path) -> None:
    """Removes what killed writes have left."""
    for left in directory.glob(f".*{SUFFIX}.*"):
        left.unlink()


def _path(directory: Path, step: int) -> Path:
    return directory / f"{step}{SUFFIX}"


def _bare(states: TrainState) -> TrainState:
    """Without the best of early stopping."""
    return states if states.stopping is None else states._replace(stopping=states.stopping._replace(best=None))


def _paths(states: TrainState) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(_bare(states))
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves}


def _named(states: TrainState) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in _paths(states).items()}


def _read(path: Path) -> tuple[Mapping[str, np.ndarray], Mapping[str, str]] | None:
    """(arrays, marks of the runs whose they are) of a file that is whole and has the name of its update. Older ones
    have no marks."""
    try:
        found, said = safetensors.read(path)
    except ConfigError:
        return None
    noted = json.loads(said.get("kept", "{}"))
    whole = digest(found) == noted.get("sha256", said.get("sha256")) and (found["step"] == int(path.stem)).all()
    return (found, noted.get("of", {})) if whole else None
