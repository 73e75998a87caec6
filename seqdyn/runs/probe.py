"""Instruments after the fact: what probes would have seen, in the records, at their places."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqdyn.layout import Tile
from seqdyn.learn import looks
from seqdyn.learn.config import Experiment
from seqdyn.measure import probes as instruments
from seqdyn.parts import is_many, is_part, listed, plain
from seqdyn.runs import again, axes, checkpoint, kept, manifest, records, sweep
from seqdyn.runs.lock import gate, held
from seqdyn.runs.records import VARIABLES, Store
from seqdyn.types import ConfigError, whole

if TYPE_CHECKING:
    import xarray as xr


def probe(path: str | Path, probes: Any, steps: Any = "kept", data: Any = None) -> "xr.Dataset":
    """What instruments see of every run of a run directory, and would have seen, bit for bit, had they been among
    `Experiment.probes`.

    `probes` are words or parts, as there; what they look at, `diagnostic`, `diagnostic_from` and `modes`, is the
    experiment's. `steps` are 'kept', the updates whose states `Experiment.keep` kept, or a list of updates, which are
    made again from the nearest state before. `data` are what the experiment was run on, None for a sampled task.

    Returned is what was seen [run, probe, …], `probe_step` the updates done before. What was seen where the experiment
    looks (multiples of `probe_every`) is in its records, too, from now on: in places that were empty; nothing that was
    recorded is written over. Raises ConfigError for probes, steps and data that do not fit, RuntimeError while another
    process trains there, OSError if it cannot be written.
    """
    path = manifest.directory(path)
    experiment = _with(manifest.experiment(path), probes)
    own = axes.own_variables(experiment)
    data = again.checked(experiment, data)
    with held(path):
        ds, at = records.load(path), experiment.layout
        done = {
            tile.index: max(checkpoint.steps(checkpoint.of_tile(path, tile.index)), default=-1) for tile in at.tiles
        }
        asked = _steps(path, experiment, steps, done)
        coordinates, variables = axes.coordinates(experiment), VARIABLES | own
        names = [name for one in experiment.probes for name in instruments.made(one).names]
        store = Store(path / "records.zarr", at)
        with gate(path):
            store.add(names, coordinates, own, done)
            manifest.write(path, manifest.read(path) | {"records": store.digest()})
        found: dict[str, np.ndarray] = {}
        for tile in at.tiles:
            running = _running(ds, at, tile, experiment.tile)
            for i, (step, seen) in enumerate(_seen(path, experiment, tile, asked, done[tile.index], running, data)):
                spec = experiment.specs[tile.spec]
                placed = {
                    name: axes.placed(values, name, spec, coordinates, variables, at.steps)
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
    looks.check(other.looking, other.specs)
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
    of, spec, looking = again.of_tile(path, experiment, tile, data), experiment.specs[tile.spec], experiment.looking
    look, states = sweep.look(spec, sweep.width(experiment), looking), None
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
    labels = {dim: values for dim, values in coordinates.items() if dim in seen.dims}
    lags = {"lag": ds["lag"]} if "time" in seen.dims else {}
    return seen.assign_coords(runs | labels | lags | {"probe_step": ("probe", asked)})
