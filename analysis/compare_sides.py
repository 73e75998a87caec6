"""Run directories side by side, read up to what all have made: for `analysis.compare`."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analysis import lags, style
from seqdyn.runs import manifest
from seqdyn.runs.records import diverged, load
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr

QUANTITIES = ("training loss", "test loss", "horizon", "share clipped")

Setting = tuple[Any, ...]


class Side(NamedTuple):
    """A directory, and its runs up to the update that all directories have reached."""

    name: str
    path: Path
    ds: "xr.Dataset"
    settings: list[Setting]
    """Of each run."""
    values: dict[str, np.ndarray]
    """`QUANTITIES` that are recorded, [run]: a diverged run's losses are infinite, its horizon is NaN."""


class Read(NamedTuple):
    """Directories side by side."""

    sides: list[Side]
    varied: list[str]
    """The coordinates that tell settings apart."""
    shared: list[Setting]
    """Settings that two directories or more have."""
    stop: int
    """Updates that all have made."""
    look: int
    """The last look that all have made, in updates."""


def read(paths: Sequence[str | Path]) -> Read:
    """Of two directories or more. Raises ConfigError for fewer, for one given twice, and where nothing is trained."""
    paths = [manifest.directory(path) for path in paths]
    if len(paths) < 2 or len({path.resolve() for path in paths}) < len(paths):
        given = ", ".join(map(str, paths)) or "none"
        raise ConfigError(f"directories is {given}; it must be two or more different run directories.")
    called = [p.name for p in paths] if len({p.name for p in paths}) == len(paths) else [*map(str, paths)]
    with ThreadPoolExecutor() as pool:
        loaded = [*pool.map(_loaded, paths)]
    made = [int(ds["recorded"].values.sum(axis=1).max(initial=0)) for ds in loaded]
    if not min(made):
        raise ConfigError(f"{paths[made.index(0)]} has made no update; compare directories that have.")
    looks = set.intersection(*({*ds["probe_step"].values.tolist()} for ds in loaded))
    look = max(n for n in looks if n <= min(made))  # the one before the first update is in all
    varied = _varied(loaded)
    with ThreadPoolExecutor() as pool:
        values = [*pool.map(lambda ds: _values(ds, min(made), look), loaded)]
    sides = [
        Side(name, path, ds, _settings(ds, varied), of)
        for name, path, ds, of in zip(called, paths, loaded, values, strict=True)
    ]
    once = [setting for side in sides for setting in dict.fromkeys(side.settings)]
    shared = [setting for setting in dict.fromkeys(once) if once.count(setting) > 1]
    return Read(sides, varied, shared, min(made), look)


def _loaded(path: Path) -> "xr.Dataset":
    """With what is read again and again in memory; the rest as lazy as ever."""
    ds = load(path)
    for name in ("recorded", "finite", "loss", "clipped"):
        if name in ds:
            ds[name].load()
    return ds


def column(ds: "xr.Dataset", name: str) -> list[Any]:
    """A coordinate of the runs; None for what is not there."""
    values = ds[name].values.tolist() if name in ds.coords else [None] * ds.sizes["run"]
    return [None if value != value or value == "" else value for value in values]


def _varied(loaded: Sequence["xr.Dataset"]) -> list[str]:
    """The coordinates, but for the seed, that vary inside a directory and tell runs apart that those before do not."""
    names = dict.fromkeys(str(n) for ds in loaded for n, of in ds.coords.items() if of.dims == ("run",))
    found: list[str] = []
    groups = 1
    for name in sorted(names, key=lambda name: name != "label"):
        if name in ("run", "seed") or all(len({*column(ds, name)}) < 2 for ds in loaded):
            continue
        finer = len({setting for ds in loaded for setting in _settings(ds, [*found, name])})
        if finer > groups:
            found, groups = [*found, name], finer
    return found


def _settings(ds: "xr.Dataset", names: Sequence[str]) -> list[Setting]:
    columns = [column(ds, name) for name in names]
    return [tuple(column[run] for column in columns) for run in range(ds.sizes["run"])]


def _values(ds: "xr.Dataset", stop: int, look: int) -> dict[str, np.ndarray]:
    gone = diverged(ds)[:, :stop].any(axis=1)
    latest = slice(stop - lags.late(stop), stop)
    found = {"training loss": np.where(gone, np.inf, ds["loss"].values[:, latest].mean(axis=1, dtype=float))}
    if "test_loss" in ds:
        probe = ds["probe_step"].values.tolist().index(look)
        found["test loss"] = np.where(gone, np.inf, ds["test_loss"].isel(probe=probe).values.astype(float))
    if "adjoint_norm" in ds and ds.sizes["layer"]:
        found["horizon"] = lags.horizon(norms(ds, [stop])[stop][:, -1])
    if "clipped" in ds:
        share = ds["clipped"].values[:, :stop]
        found["share clipped"] = np.asarray([lags.mean(run) for run in share])
    return found


def norms(ds: "xr.Dataset", at: Iterable[int]) -> dict[int, np.ndarray]:
    """‖∂L/∂h_t‖ [run, layer, lag] after each of these numbers of updates: of the first update (0), or the median of the
    last ones before; NaN of runs that are not there or have diverged. What they share is read once."""
    windows = {done: np.arange(max(done, 1) - lags.late(max(done, 1)), max(done, 1)) for done in at}
    steps = np.unique(np.concatenate([*windows.values(), np.empty(0, int)]))
    values = lags.adjoint(ds, "adjoint_norm", step=steps).transpose("step", "run", "layer", "time").values
    there = ds["recorded"].values & ds["finite"].values
    found = {}
    for done, window in windows.items():
        middle = style.median(values[np.searchsorted(steps, window)])
        found[done] = lags.by_lag(ds, np.where(there[:, window[-1], None, None], middle, np.nan))
    return found


def setting_text(found: Read, setting: Setting) -> str:
    """A setting in words."""
    named = zip(found.varied, setting, strict=True)
    return ", ".join(lags.text(v) if name == "label" else lags.named(name, v) for name, v in named if v is not None)
