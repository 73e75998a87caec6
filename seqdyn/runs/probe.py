"""Instruments after the fact: what probes would have seen, in the records, at their places."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqdyn.layout import Layout, Tile, layout
from seqdyn.learn import probe_config
from seqdyn.learn.config import Experiment
from seqdyn.measure import probes as instruments
from seqdyn.parts import is_many, is_part, listed, plain
from seqdyn.runs import added, again, axes, checkpoint, kept, manifest, records, sweep
from seqdyn.runs.lock import gate, held
from seqdyn.runs.records import VARIABLES, Store
from seqdyn.runs.traced import check_traces
from seqdyn.types import ConfigError, whole

if TYPE_CHECKING:
    import xarray as xr


def probe(path: str | Path, probes: Any, steps: Any = "kept", data: Any = None) -> "xr.Dataset":
    """Measures every run of a run directory, bit for bit as if the probes had been among `Experiment.probes`.

    `probes` are words or parts, as there. `diagnostic`, `diagnostic_from` and `modes` are the experiment's. `steps` are
    'kept' (the updates whose states `Experiment.keep` kept) or a list of updates; these are made again from the nearest
    state before them. `data` are what the experiment was run on, None for a sampled task.

    Returns what was measured [run, probe, …]; `probe_step` says after how many updates. Where the experiment itself
    looks, at multiples of `probe_every`, it is now in the records, too, in places that were empty. Nothing that was
    recorded is written over.

    Raises ConfigError for probes, steps and data that do not fit, RuntimeError while another process trains there,
    OSError if the directory cannot be written.
    """
    out, *inside = manifest.directories(path)
    seen = {out: of_directory(out, probes, steps, data)}
    for one in inside:
        last = max(_done(one, layout(manifest.read(one)["experiment"])).values())
        within = steps if isinstance(steps, str) else [n for n in listed(steps) if n <= last]
        if last >= 0 and within:
            seen[one] = of_directory(one, probes, within, data)
    return seen[out] if len(seen) == 1 else _together(out, seen)


def _together(out: Path, seen: dict[Path, "xr.Dataset"]) -> "xr.Dataset":
    """What was seen in a directory and in those that extend it, whose axes are parts of its own."""
    import xarray as xr  # takes two seconds

    first, runs, parts, count = seen[out], [], [], 0
    labels = {dim: first[dim] for dim in first.dims if dim in first.indexes and dim not in ("run", "probe")}
    for one in manifest.directories(out):
        here = range(count, count := count + sum(layout(manifest.read(one)["experiment"]).counts))
        if one not in seen:
            continue
        part = seen[one].assign_coords(probe=seen[one]["probe_step"].values).drop_vars("probe_step")
        if "time" in part.dims:
            ends = first["time"].values[-1] - part["time"].values[-1]
            part = part.assign_coords(time=part["time"].values + ends)
        part = part.drop_vars(
            [name for name, of in part.coords.items() if of.dims == ("run",)] + ["lag"], errors="ignore"
        )
        mine = {dim: part[dim].astype(of.dtype) for dim, of in labels.items() if dim in part.dims}
        parts.append(part.assign_coords(mine).reindex({dim: labels[dim] for dim in mine}))
        runs += here
    found = xr.concat(parts, "run", join="outer", data_vars="all", coords="minimal", compat="override")
    ds = records.load(out).isel(run=runs)
    of_runs = {name: of for name, of in ds.coords.items() if of.dims == ("run",)}
    lags = {"lag": first["lag"]} if "lag" in first.coords else {}
    steps = found["probe"].values
    return found.drop_vars("probe").assign_coords(of_runs | lags | {"probe_step": ("probe", steps)})


def _done(path: Path, at: Layout) -> dict[int, int]:
    """Of each tile, by its index, the updates of its newest checkpoint, −1 without one."""
    return {t.index: max(checkpoint.steps(checkpoint.of_tile(path, t.index)), default=-1) for t in at.tiles}


def of_directory(path: Path, probes: Any, steps: Any, data: Any) -> "xr.Dataset":
    """`probe`, without the runs of directories that extend this one."""
    experiment = _with(manifest.experiment(path), probes)
    own = axes.own_variables(experiment)
    data = again.checked(experiment, data)
    if why := manifest.sealed(path):
        raise ConfigError(
            f"{path} gets what is measured, and nothing can be written in it ({why}); probe a copy of it."
        )
    check_traces(experiment, data)
    with held(path):
        ds, at = records.alone(path), experiment.layout
        done = _done(path, at)
        asked = _steps(path, experiment, steps, done)
        coordinates, variables = axes.coordinates(experiment), VARIABLES | own
        names = [name for one in experiment.probes for name in instruments.made(one).names]
        store = Store(path / "records.zarr", at)
        with gate(path):
            added.add(store, names, coordinates, own, done)
            manifest.write(path, manifest.read(path) | {"records": store.digest()})
        found: dict[str, np.ndarray] = {}
        for tile in at.tiles:
            running = _running(ds, at, tile, experiment.tile)
            for i, (step, seen) in enumerate(_seen(path, experiment, tile, asked, done[tile.index], running, data)):
                spec = experiment.specs[tile.spec]
                placed = {
                    name: axes.align_to_axes(values, name, spec, coordinates, variables, at.steps)
                    for name, values in seen.items()
                }
                if step % at.probe_every == 0:
                    store.fill(tile, step // at.probe_every, placed)
                for name, values in placed.items():
                    size = (ds.sizes["run"], len(asked), *values.shape[1:])
                    into = found.setdefault(name, np.full(size, np.nan, np.float32))
                    into[at.numbers(tile), i] = values[: len(tile.runs)]
    found = {name: at.thinned(values, ("run", *variables[name].dims)) for name, values in found.items()}
    return _dataset(ds, found, variables, coordinates, asked)


def _with(experiment: Experiment, probes: Any) -> Experiment:
    """The experiment with these probes, checked as its own are."""
    given = plain(probes)
    other = copy.copy(experiment)
    object.__setattr__(other, "probes", (given,) if isinstance(given, str) or is_part(given) else given)
    probe_config.check(other.probe_config, other.specs)
    if not other.probes:
        raise ConfigError("probes is (); it must have at least one.")
    return other


def _steps(path: Path, experiment: Experiment, steps: Any, done: dict[int, int]) -> list[int]:
    last = max(done.values())
    if last < 0:
        raise ConfigError(f"{path} has only begun: it has no checkpoint yet.")
    if isinstance(steps, str) and steps == "kept":
        found = {n for index in done for n in kept.steps(kept.of_tile(path, index)) if n <= done[index]}
        if not found:
            raise ConfigError(f"steps is 'kept' and {path} has kept none; it must be a list of updates.")
        return sorted(found)
    given = listed(steps)
    if isinstance(steps, str) or not is_many(steps) and not hasattr(given[0], "__index__"):
        raise ConfigError(f"steps is {steps!r:.60}; it must be 'kept', or a list of updates.")
    found = sorted({whole(f"steps[{i}]", one, 0) for i, one in enumerate(given)})
    if not found or found[-1] > last:
        raise ConfigError(f"steps is {given!r:.60}; it must be 'kept', or a list of updates from 0 to {last}.")
    return found


def _running(ds: "xr.Dataset", at: Any, tile: Tile, rows: int) -> Any:
    """step -> [tile] bool: which runs were going on when so many updates were done."""
    mine = ds.isel(run=at.numbers(tile))
    made = np.logical_and.accumulate(mine["recorded"].values & mine["finite"].values, axis=1)
    counts = np.pad(made.sum(axis=1), (0, rows - len(tile.runs)), constant_values=-1)
    return lambda step: counts >= step


def _seen(
    path: Path, experiment: Experiment, tile: Tile, asked: list[int], done: int, running: Any, data: Any
) -> Iterable[tuple[int, dict[str, np.ndarray]]]:
    """(step, the records of its probes [tile, …]) of a tile, as far as it has been trained."""
    of, spec, looking = (
        again.of_tile(path, experiment, tile, data),
        experiment.specs[tile.spec],
        experiment.probe_config,
    )
    look, states = sweep.measure(spec, sweep.width(experiment), looking), None
    for step in asked:
        if step > done:
            return
        if (there := of.at(step)) is not None:
            states = there
        else:
            states = of.onwards(states if states is not None else of.near(step)[1], step)
        looked = look(of.runs, states, data)
        yield step, instruments.finish(spec, looking, looked, np.asarray(states.alive) & running(step))


def _dataset(
    ds: "xr.Dataset", found: dict[str, np.ndarray], variables: Any, coordinates: dict[str, Any], asked: list[int]
) -> "xr.Dataset":
    import xarray as xr  # takes two seconds

    arrays = {
        name: (
            ("run", *variables[name].dims),
            values,
            {"long_name": variables[name].long_name, "units": variables[name].units},
        )
        for name, values in found.items()
    }
    seen = xr.Dataset(arrays)
    runs = {name: of for name, of in ds.coords.items() if of.dims == ("run",)}
    own = {axis: list(labels) for name in found for axis, labels in variables[name].axes.items()}
    labels = {dim: values for dim, values in (coordinates | own).items() if dim in seen.dims}
    lags = {"lag": ds["lag"]} if "time" in seen.dims else {}
    return seen.assign_coords(runs | labels | lags | {"probe_step": ("probe", asked)})
