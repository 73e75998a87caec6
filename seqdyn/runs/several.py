"""Runs of several directories: side by side in one data set, and found by what they are."""

import glob
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqdyn.parts import is_many, is_part, listed
from seqdyn.runs import manifest, points, records
from seqdyn.types import ConfigError, as_path

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


def load(path: Any) -> "xr.Dataset":
    """The records of a run directory (`records.load`), or of several in a list, as one data set.

    Of several, `run` counts on through them, `experiment` says of each run which directory it lies in (its name; its
    path where two share a name), and `run_there` which run it is there. All end at lag 0; `probe` is the number of
    updates done before the look, as `probe_step` is; what a run does not have, its directory being shorter or without
    the variable or coordinate, is NaN, False or ''. A coordinate that is a number in one directory and a word in
    another (`layer`, of a network that is no stack) is a word in all. Raises as `records.load`, and ConfigError for an
    empty list and for a directory that is in it twice.
    """
    if isinstance(path, str | Path):
        return records.load(path)
    import xarray as xr  # takes two seconds

    paths = different(path)
    names = [p.name for p in paths]
    called = names if len({*names}) == len(names) else [str(p) for p in paths]
    parts = _of_one_kind([_alone(records.load(p), name) for p, name in zip(paths, called, strict=True)])
    parts = _without_axes(parts)
    words = {name: of.dtype.kind in "UO" for part in parts for name, of in part.coords.items() if of.dims == ("run",)}
    fill = {name: False if of.dtype.kind == "b" else np.nan for part in parts for name, of in part.data_vars.items()}
    for at, part in enumerate(parts):
        absent = {name: ["" if word else np.nan] * part.sizes["run"] for name, word in words.items()}
        there = {name: ("run", values) for name, values in absent.items() if name not in part.coords}
        parts[at] = part.assign_coords(there)
    found = xr.concat(
        parts,
        "run",
        join="outer",
        data_vars="all",
        coords="minimal",
        compat="override",
        fill_value=fill,
        combine_attrs="drop",
    )
    lags = -found["time"].values
    return found.assign_coords(
        run=np.arange(found.sizes["run"]),
        probe_step=("probe", found["probe"].values),
        time=lags.max() - lags,
        lag=("time", lags),
    )


def different(given: Any) -> list[Path]:
    """Run directories none of which is there twice; ConfigError for anything else."""
    right = "a run directory, or a list of one or more"
    if not isinstance(given, Iterable) or not (paths := [as_path("path", path, right) for path in given]):
        raise ConfigError(f"path is {given!r:.80}; it must be {right}.")
    there: set[Path] = set()
    for path in paths:
        held = {one.resolve() for one in manifest.directories(path)}
        if held & there:
            raise ConfigError(f"path has {path} twice; each run directory must be in it once, or its runs count twice.")
        there |= held
    return paths


def _without_axes(parts: list["xr.Dataset"]) -> list["xr.Dataset"]:
    """A number that has the name of an axis (`window`) gives way to it where any directory has that axis, not only
    where its own has it."""
    dims = {str(dim) for part in parts for dim in part.dims}
    return [
        part.rename({name: f"numbers_{name}" for name in dims & {*part.coords} if part[name].dims == ("run",)})
        for part in parts
    ]


def _of_one_kind(parts: list["xr.Dataset"]) -> list["xr.Dataset"]:
    """Coordinates that are numbers in some directories and words in others are words in all."""
    kinds: dict[Any, set[bool]] = {}
    for part in parts:
        for name, of in part.coords.items():
            kinds.setdefault(name, set()).add(of.dtype.kind in "UO")
    mixed = [name for name, kind in kinds.items() if len(kind) > 1]
    return [part.assign_coords({n: part[n].astype(str) for n in mixed if n in part.coords}) for part in parts]


def _alone(ds: "xr.Dataset", name: str) -> "xr.Dataset":
    """One directory's, its axes labelled so that those of others can be laid beside them."""
    ds = ds.assign_coords(
        time=-ds["lag"].values, probe=ds["probe_step"].values, experiment=("run", [name] * ds.sizes["run"])
    )
    return ds.assign_coords(run_there=("run", ds["run"].values)).drop_vars(["run", "lag", "probe_step"])


STATUS = ("unfinished", "stopped", "diverged", "finished")
"""What can have become of a run; 'stopped' is by early stopping."""


def find(pattern: str, **where: Any) -> "pd.DataFrame":
    """The runs of all run directories that a glob matches ("runs/**"), a row each, if they are as asked for.

    `gain=1.0` asks for one value, `cell=["rnn", "lstm"]` for one of several, `gain=(0.9, 1.1)` for numbers from the
    first to the second, and of `lr=lambda lr: lr < 1e-3` the function says yes or no. Words are found in any case
    ("Adam" is 'adam'), parts by their class (`optimizer=Lion`, or "Lion"), numbers of NumPy in their own precision.
    Columns are the path, the number of the run there, its `status` (`STATUS`), how many `updates` it has made, every
    coordinate of `run` that `load` has, every other field of a `Spec`, and the latest value of every held-out loss and
    accuracy. What extends a directory is found with it. A directory that has only begun or cannot be read is left out,
    with a warning. Raises ConfigError if there is no directory, for a column that none has, and for a word that is no
    status.
    """
    import pandas as pd

    if not isinstance(pattern, str | os.PathLike):
        raise ConfigError(f"pattern is {pattern!r:.80}; it must be a glob, as 'runs/**', or a run directory.")
    base = os.path.expanduser(pattern)
    base = glob.escape(base) if os.path.exists(os.path.join(base, manifest.NAME)) else base
    paths = sorted({Path(path).parent for path in glob.glob(os.path.join(base, manifest.NAME), recursive=True)})
    paths = [path for path in paths if path.parent not in paths or not manifest.extends(path)]  # it has their runs
    if not paths:
        raise ConfigError(f"pattern is {pattern!r}, which matches no run directory; it must be a glob, as 'runs/**'.")
    rows = [row for row in map(_rows, paths) if row is not None]
    if not rows:
        raise ConfigError(f"pattern is {pattern!r}; nothing is recorded yet in what it matches, or cannot be read.")
    found: Any = pd.concat(rows, ignore_index=True)
    for name, default in points.defaults(found.columns, records.VARIABLES).items():
        there = found[name] if name in found.columns else pd.Series(np.nan, found.index)
        found[name] = there.astype(object).where(there.notna(), default).infer_objects()
    for name, wanted in where.items():
        if name not in found.columns:
            raise ConfigError(f"{name} is no column of these runs; they have {', '.join(found.columns)}.")
        for word in listed(wanted) if name == "status" and not callable(wanted) else ():
            if isinstance(word, str) and word.casefold() not in STATUS:
                raise ConfigError(f"status is {word!r:.60}; it must be one of {', '.join(STATUS)}.")
        found = found.loc[[_fits(value, wanted) for value in found[name]]]
    return found.reset_index(drop=True)


def _rows(path: Path) -> "pd.DataFrame | None":
    """None, with a warning, of what cannot be read or has only begun."""
    import pandas as pd

    try:
        ds = records.load(path)
    except (ConfigError, RuntimeError, OSError) as error:
        warnings.warn(f"left out: {error}", stacklevel=3)
        return None
    columns: dict[str, Any] = {"path": str(path), "run": ds["run"].values}
    made = ds["recorded"].values.sum(axis=1)
    diverged, stopped = records.diverged(ds).any(axis=1), _latest(ds, "stopped") == 1
    done = made == ds.sizes["step"]
    columns["status"] = np.select([diverged, stopped, done], ["diverged", "stopped", "finished"], "unfinished")
    columns["updates"] = made
    columns |= {str(name): of.values for name, of in ds.coords.items() if of.dims == ("run",) and name != "run"}
    held_out = [
        str(n) for n in ds.data_vars if str(n).endswith(("_loss", "_accuracy")) and ds[n].dims == ("run", "probe")
    ]
    return pd.DataFrame(columns | {name: _latest(ds, name) for name in held_out})


def _latest(ds: "xr.Dataset", name: str) -> np.ndarray:
    """Each run's newest value that exists; NaN without one."""
    return records.latest(ds[name].values) if name in ds else np.full(ds.sizes["run"], np.nan)


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, type) or is_part(wanted):
        wanted = (wanted if isinstance(wanted, type) else type(wanted)).__name__
    if callable(wanted):
        return bool(wanted(value))
    if isinstance(wanted, tuple):
        if len(wanted) != 2 or not all(_is_number(end) for end in wanted) or not wanted[0] <= wanted[1]:
            raise ConfigError(f"{wanted!r:.60} is no range; give two numbers, the lower first, or a list of values.")
        return _is_number(value) and bool(wanted[0] <= value <= wanted[1])
    if isinstance(wanted, str):
        return isinstance(value, str) and value.casefold() == wanted.casefold()
    if is_many(wanted):
        return any(_fits(value, one) for one in wanted)
    if isinstance(wanted, np.floating) and _is_number(value):
        value = type(wanted)(value)
    return bool(value == wanted) or bool(value != value and wanted != wanted)  # NaN finds NaN


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
