"""More runs in a run directory that is there: other seeds and numbers, other instruments."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from seqdyn import grids
from seqdyn.data.vectors import load_vocabulary
from seqdyn.described import difference
from seqdyn.learn.config import Experiment
from seqdyn.learn.context import check_beside
from seqdyn.learn.extended import more
from seqdyn.learn.spec import Spec, share_numbers, unnumbered
from seqdyn.numbers import FIELDS
from seqdyn.parts import plain
from seqdyn.runs import kept, manifest, starts
from seqdyn.runs.axes import own_variables
from seqdyn.runs.lock import WHOLE, Shard
from seqdyn.runs.probe import of_directory, probe
from seqdyn.runs.records import Store
from seqdyn.runs.run import CHECKPOINT_SECONDS, VOCABULARY, complete, run
from seqdyn.types import ConfigError


def extend(
    path: str | Path,
    seeds: Any = None,
    axes: Mapping[str, Any] | None = None,
    probes: Any = (),
    data: Any = None,
    *,
    verify: bool = True,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    console: Console | None = None,
    shard: str | Shard = WHOLE,
    allow_version_drift: bool = False,
) -> Path:
    """Trains the runs that a run directory lacks of a larger grid, and returns it; its own runs and files are left as
    they are.

    `seeds` are which, or of a whole number n those of 0 … n − 1 that are not there; they are crossed with all settings.
    `axes` are numbers by their names, as `grid` has them: each value takes the place of that number in every run there
    is. `probes`, words or parts, look at the new runs beside the experiment's own, and at all others in the states that
    were kept of them (`seqdyn.probe`). All else, `init` too, is what the directory has; `data` are what it was run on,
    None for a sampled task.

    The new runs lie in `path`/more-1, the next in more-2, …, run directories themselves, and have the numbers after
    those that are there: `load`, `find`, `restore`, `replay`, `probe`, `why` and all analysis read them as of one
    directory. Their bits are those of an experiment that had them from the start. The same call again goes on after a
    kill, and, where `run` has raised the updates of `path`, to those. A `shard`, as '0/2', trains its tiles of the new
    runs only; the last one has the probes look at the others.

    Raises ConfigError for a value with which there is nothing that is not there, for names and values as `grid`, for
    parts that this process does not hold, with the module to import, and as `run` does.
    """
    path = manifest.directory(path)
    directories = manifest.directories(path)
    if manifest.extends(path):
        raise ConfigError(f"{path} extends {path.absolute().parent}; extend that.")
    experiments = [manifest.experiment(one) for one in directories]
    if any(np.isnan(np.asarray(getattr(experiments[0].runs[0].numbers, f.name), float)).any() for f in FIELDS):
        raise ConfigError(f"{path} was recorded of another loop; what seqdyn.run has made can be extended.")
    given = plain(probes)
    given = tuple(given) if isinstance(given, tuple) else (given,)
    if seeds is None and not axes:
        if not given:
            raise ConfigError("extend has nothing to add; give seeds, axes or probes.")
        probe(path, given, data=data)
        return path
    k, experiment = _place(experiments, seeds, {} if axes is None else axes, given)
    recorded = [
        Store(one / "records.zarr", old.layout).there() for one, old in zip(directories, experiments, strict=True)
    ]
    check_beside("probes", {name: of for there in recorded for name, of in there.items()}, own_variables(experiment))
    if k == len(directories):
        manifest.held_against(path, experiment, allow_version_drift)
    noted, words = manifest.read(path), path / VOCABULARY
    run(
        experiment,
        manifest.more(path, k),
        data,
        verify=verify,
        checkpoint_seconds=checkpoint_seconds,
        console=console,
        shard=shard,
        vocabulary=load_vocabulary(words) if words.exists() else None,
        init=starts.again(path, noted, experiment) if "init" in noted else None,
        allow_version_drift=allow_version_drift,
    )
    if not complete(manifest.more(path, k)):
        return path
    for out, old in zip(directories[:k], experiments[:k], strict=True):
        lacking = tuple(one for one in given if one not in old.probes)
        if lacking and any(kept.steps(kept.of_tile(out, tile.index)) for tile in old.layout.tiles):
            of_directory(out, lacking, "kept", data)
        elif lacking:
            warnings.warn(
                f"{out} has kept no states of its runs, so the probes look at the new ones alone", stacklevel=2
            )
    return path


def _place(
    experiments: Sequence[Experiment], seeds: Any, axes: Mapping[str, Any], probes: tuple[Any, ...]
) -> tuple[int, Experiment]:
    """(which time it is that these runs are added, 1 the first; what they are). The call that added some of those that
    are there is known by what it adds to those before them."""
    for k in range(1, len(experiments)):
        again, there = _extended(experiments[:k], seeds, axes, probes), experiments[k]
        if not difference(there.describe() | {"updates": 0}, again.describe() | {"updates": 0}):
            return k, dataclasses.replace(again, updates=max(again.updates, there.updates))
    return len(experiments), _extended(experiments, seeds, axes, probes)


_OTHERS = ("name", "updates", "chunk", "probe_every", "tile", "diagnostic", "diagnostic_from", "modes", "lags", "keep")


def _extended(before: Sequence[Experiment], seeds: Any, axes: Mapping[str, Any], probes: tuple[Any, ...]) -> Experiment:
    """What is lacking of the runs of experiments, the first of them and those that extend it, looked at by probes."""
    first, last = before[0], before[-1]
    runs = more([one for experiment in before for one in experiment.runs], seeds, axes)
    looking = last.probes + tuple(one for one in probes if one not in last.probes)
    others = {name: getattr(first, name) for name in _OTHERS}
    return Experiment(**others, **_crossed(first, runs), probes=looking, settings=first.settings)


def _crossed(first: Experiment, runs: list[Spec]) -> dict[str, Any]:
    """As specs that share their `numbers`, where the experiment's do: one of them alone may heed some."""
    of_parts = [of for one in runs for at, (_, of) in grids.numbers(one).items() if not at.startswith("numbers.")]
    fixed = all(len({*np.asarray(of).tolist()}) == 1 for of in of_parts)
    if first.numbers is not None and share_numbers(runs) and fixed:
        return {"specs": tuple(unnumbered(one.at(0)) for one in runs), "numbers": runs[0].numbers}
    return {"specs": tuple(runs)}
