"""What is recorded, said to a tracker as well: TensorBoard, Weights & Biases, Trackio. For `seqdyn.run(on_chunk=…)`.

A tracker's run for each run, under its number, label and whatever varies in the directory; its config is what `load`
has as coordinates of `run`. The axis counts updates done: record n of `load` stands at n + 1, a look where `probe_step`
is. Said are all records that have one value an update or look, or one for each layer, group or gate; ‖∂L/∂h_t‖ at lags
0, 1, 10, 100, … and the last; nothing where there is no finite value: `finite` is 0 from the update that broke.

A resumed run goes on in its tracker's run. After a kill a few updates are made again, to the same bits: TensorBoard
drops what it had of them, the others have the same numbers twice. A directory that was moved is another to W&B.
"""

import contextlib
import contextvars
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from seqdyn.data.extras import needed
from seqdyn.runs.chunks import Chunk
from seqdyn.runs.records import load
from seqdyn.types import whole

if TYPE_CHECKING:
    import xarray as xr

Mirror = Callable[[Chunk], None]


class _Run(NamedTuple):
    """A run of a directory, as a tracker is told of it."""

    group: str
    """The directory's name."""
    id: str
    """Of this run of this directory, for good."""
    name: str
    config: dict[str, Any]
    done: int
    """Updates that were made before this process took it up."""


class _Said(Protocol):
    """A run of a tracker."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


def tensorboard(folder: str | os.PathLike[str], every: int | None = None) -> Mirror:
    """Event files under `folder`, a folder for each run, its config as a text.

    Said is every n-th update if `every` is n, the last of each chunk if it is None, and all looks; so everywhere here.
    Raises ConfigError where tensorboardX is not installed.
    """
    writer = needed("tensorboardX", "mirrors.tensorboard").SummaryWriter
    said = needed("tensorboardX.proto.summary_pb2", "mirrors.tensorboard").Summary

    class Said:
        def __init__(self, run: _Run) -> None:
            where = os.path.join(folder, run.group, re.sub(r"[^\w .,=+-]", "_", run.name))
            # What a process that was killed has said of later updates is hidden. Without a name of its own the file
            # would be that of another that begins in the same second.
            purged = run.done + 1 if run.done else None
            self._to = writer(where, purge_step=purged, max_queue=1000, filename_suffix=f".{run.done:09d}")
            if not run.done:
                self._to.add_text("config", f"```\n{json.dumps(run.config, indent=1)}\n```")

        def log(self, values: dict[str, float], step: int) -> None:
            # In one event: add_scalar would take four times as long.
            each = [said.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            self._to.file_writer.add_summary(said(value=each), step)

        def finish(self) -> None:
            self._to.close()

    return _Mirror(Said, every)


def wandb(project: str, every: int | None = None, *, mode: str = "offline", **options: Any) -> Mirror:
    """Runs of Weights & Biases, offline in ./wandb until `wandb sync`; `options` are `wandb.init`'s, as dir, entity,
    tags. A resumed run writes a further folder with the same id.

    Raises ConfigError where wandb is not installed.
    """
    library = needed("wandb", "mirrors.wandb")

    def begin(run: _Run) -> _Said:
        of_run = dict(id=run.id, name=run.name, group=run.group, config=run.config, resume="allow", mode=mode)
        # Else it lists all packages, asks git and moves links, anew for each run: longer than to log all of it.
        lean = dict(x_disable_stats=True, x_save_requirements=False, disable_git=True, symlink=False)
        quiet = library.Settings(silent=True, console="off", **lean)
        return library.init(project=project, **(of_run | dict(reinit="create_new", settings=quiet) | options))

    return _Mirror(begin, every)


def trackio(project: str, every: int | None = None, **options: Any) -> Mirror:
    """Runs of Trackio, in its folder on this machine (TRACKIO_DIR); `options` are `trackio.init`'s, as space_id.

    Raises ConfigError where trackio is not installed.
    """
    library = needed("trackio", "mirrors.trackio")
    usual: dict[str, Any] = dict(resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False) | options

    class Said:
        def __init__(self, run: _Run) -> None:
            # It has one run at a time in a context, and ends the one before.
            alone = contextvars.copy_context()
            of_run = dict(name=f"{run.group} {run.name}", group=run.group, config=run.config)
            with contextlib.redirect_stdout(io.StringIO()):
                self._to = alone.run(library.init, project, **(of_run | usual))
            self.log = self._to.log

        def finish(self) -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._to.finish()

    return _Mirror(Said, every)


class _Mirror:
    """Begins a tracker's run when its first chunk comes, and ends it after its last or when the training ends."""

    def __init__(self, begin: Callable[[_Run], _Said], every: int | None) -> None:
        self._begin, self._every = begin, None if every is None else whole("every", every)
        self._open: dict[tuple[str, int], _Said] = {}
        self._names: dict[str, list[str]] = {}

    def __call__(self, new: Chunk) -> None:
        ds, path = new.whole(), str(new.path.resolve())
        if path not in self._names:
            self._names[path] = _names(load(new.path))
        for number in new.runs:
            if (path, number) not in self._open:
                told = f"{path}:{number}".encode("utf-8", "surrogateescape")
                config = _config(ds, number) | {"path": path}
                name = self._names[path][number]
                run = _Run(new.path.name, hashlib.sha256(told).hexdigest()[:16], name, config, new.start)
                self._open[path, number] = self._begin(run)
        for step, values in _values(ds, new, self._every):
            for i, number in enumerate(new.runs):
                there = {tag: float(of[i]) for tag, of in values.items() if np.isfinite(of[i])}
                if there:
                    self._open[path, number].log(there, step=step)
        if new.stop == ds.attrs["updates"]:
            for number in new.runs:
                self._open.pop((path, number)).finish()

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].finish()


def _config(ds: "xr.Dataset", number: int) -> dict[str, Any]:
    """Coordinates of one run, and what the directory says of itself, as JSON."""
    of_runs = {str(name): ds.variables[name] for name in ds.coords if ds.variables[name].dims == ("run",)}
    found = {name: of.values[number].item() for name, of in of_runs.items()}
    return {name: value for name, value in (found | ds.attrs).items() if value == value}


def _names(ds: "xr.Dataset") -> list[str]:
    """Of each run: its number, its label, and the coordinates that vary."""
    columns = {str(name): of.values.tolist() for name, of in ds.coords.items() if of.dims == ("run",)}
    varied = [n for n, of in columns.items() if n not in ("run", "label") and len({*map(str, of)}) > 1]
    width = len(str(ds.sizes["run"] - 1))
    return [
        ", ".join([f"{number:0{width}d} {label}"] + [_told(name, columns[name][number]) for name in varied])
        for number, label in enumerate(columns["label"])
    ]


def _told(name: str, value: Any) -> str:
    return f"{name}={value:g}" if isinstance(value, int | float) else f"{name}={value}"


def _values(ds: "xr.Dataset", new: Chunk, every: int | None) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(updates done, tag -> [run]) of what is new; NaN where there is nothing.

    Variables are indexed one by one: `isel` of all of them would take longer than to read what is said.
    """
    steps = np.arange(new.start, new.stop)
    steps = steps[(steps + 1) % every == 0] if every else steps[-1:]
    looks, runs = np.arange(new.looks.start, new.looks.stop), slice(new.runs.start, new.runs.stop)
    made = ds.variables["recorded"][runs, steps].values
    found: dict[int, dict[str, np.ndarray]] = {}
    for name in ds.data_vars:
        of = ds.variables[name]
        at = steps if "step" in of.dims else looks
        done = at + 1 if "step" in of.dims else ds.variables["probe_step"].values[at]
        for tag, values in _curves(str(name), of[runs, at], ds) if len(at) else ():
            values = values.astype(float) if "step" not in of.dims else np.where(made, values.astype(float), np.nan)
            for k, row in enumerate(done.tolist()):
                found.setdefault(row, {})[tag] = values[:, k]
    yield from sorted(found.items())


def _curves(name: str, of: "xr.Variable", ds: "xr.Dataset") -> Iterator[tuple[str, np.ndarray]]:
    """(tag, [run, when]) of one variable of a directory."""
    labels = {str(dim): ds.variables[dim].values for dim in of.dims[2:] if dim != "time"}
    if name == "adjoint_norm":
        lags = ds.variables["lag"].values
        at = [i for i, lag in enumerate(lags.tolist()) if lag == lags.max() or str(lag).strip("0") in ("", "1")]
        of, labels = of.isel(time=at), labels | {"time": [f"lag_{lags[i]}" for i in at]}
    elif name == "recorded" or not labels.keys() <= {"layer", "group", "gate"} or "time" in of.dims:
        return
    values = of.values
    for place in np.ndindex(values.shape[2:]):
        named = [(dim, labels[str(dim)][k]) for dim, k in zip(of.dims[2:], place, strict=True)]
        words = [f"layer_{label}" if dim == "layer" else str(label) for dim, label in named]
        yield "/".join([name, *words]), values[(slice(None), slice(None), *place)]
