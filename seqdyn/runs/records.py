"""The record store of a run directory: dense arrays with named axes, preallocated zarr, written by region, read as
xarray.

The store's first axis is `row`: tiles of the experiment one after the other, padding included, so that one tile's
chunk of updates is exactly one chunk of each array on disk. Writing a region twice is the same as writing it once,
and a write that was torn by a kill is written again on resume. `load` drops the padding and calls the axis `run`.

Every chunk carries a checksum: a flipped bit or a cut file is an error when it is read. Every chunk that a checkpoint
covers is there, whatever its values: a missing one is an error too. The manifest has a digest of the metadata.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqdyn.files import in_one_step
from seqdyn.layout import Layout, Tile, layout
from seqdyn.learn.context import Variable
from seqdyn.runs import checkpoint, manifest, points
from seqdyn.runs.lock import gate
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr


_PER_TIME = ("step", "layer", "time")
_PER_LAYER = ("probe", "layer")
_PER_GATE = ("probe", "layer", "gate")
VARIABLES: dict[str, Variable] = {
    "loss": Variable(("step",), "training loss of the batch without penalties, before the update", "loss"),
    "accuracy": Variable(
        ("step",), "fraction of the batch that is right, before the update, with dropout if there is any"
    ),
    "grad_norm": Variable(("step",), "global gradient norm before clipping", "loss / parameter"),
    "learning_rate": Variable(("step",), "scheduled learning rate", "parameter² / loss"),
    "clip_scale": Variable(("step",), "norm of the gradient (or adjoint) after clipping over that before"),
    "clipped": Variable(("step",), "fraction of updates, entries or adjoints that clipping changed"),
    "finite": Variable(("step",), "loss, gradient and update were finite"),
    "recorded": Variable(("step",), "this update has been made, or skipped as the run had diverged"),
    "group_grad_norm": Variable(
        ("step", "group"), "gradient norm of a parameter group before clipping", "loss / parameter"
    ),
    "group_update_norm": Variable(("step", "group"), "norm of the update of a parameter group", "parameter"),
    "adjoint_norm": Variable(_PER_TIME, "RMS over examples of ‖∂L/∂h_t‖", "loss / h"),
    "carried_norm": Variable(
        _PER_TIME, "RMS over examples of the part of ∂L/∂h_t that came from step t + 1", "loss / h"
    ),
    "adjoint_norm_c": Variable(_PER_TIME, "RMS over examples of ‖∂L/∂c_t‖ with h_t held fixed", "loss / c"),
    "adjoint_log_norm": Variable(_PER_TIME, "mean over examples of log₂ ‖∂L/∂h_t‖ where it is not 0", "log₂ loss / h"),
    "adjoint_nonzero": Variable(_PER_TIME, "share of the examples whose ∂L/∂h_t is not 0"),
    "adjoint_count": Variable(("step", "time"), "examples of the batch that reach this lag", "examples"),
    "penalty_l1": Variable(("step",), "Σ |w|, before its weight λ", "parameter"),
    "penalty_l2": Variable(("step",), "½ Σ w², before its weight λ", "parameter²"),
    "penalty_activity": Variable(("step",), "mean of h² of the top level, before its weight λ", "h²"),
    "penalty_orthogonality": Variable(("step",), "Σ ‖UᵀU − I‖², before its weight λ"),
    "penalty_omega": Variable(("step",), "Pascanu's Ω, before its weight λ"),
    "penalty_l1_proximal": Variable(("step",), "Σ |w|, before its weight λ", "parameter"),
    "penalty_l0": Variable(("step",), "expected number of weights that are not 0, before its weight λ", "weights"),
    "test_loss": Variable(("probe",), "loss on the test split", "loss"),
    "test_accuracy": Variable(("probe",), "fraction right on the test split"),
    "train_loss": Variable(("probe",), "loss on the training split, as the held-out ones are judged", "loss"),
    "train_accuracy": Variable(("probe",), "fraction right on the training split, as the held-out ones are judged"),
    "validation_loss": Variable(("probe",), "loss on the validation split", "loss"),
    "validation_accuracy": Variable(("probe",), "fraction right on the validation split"),
    "shuffled_loss": Variable(("probe",), "loss on the test split with the steps of each sequence shuffled", "loss"),
    "shuffled_accuracy": Variable(("probe",), "fraction right on the test split, steps of each sequence shuffled"),
    "best_step": Variable(("probe",), "updates done at the best look of early stopping so far", "updates"),
    "stopped": Variable(("probe",), "early stopping has ended the run by this look"),
    "group_nonzero": Variable(("probe", "group"), "numbers of a group that are not 0, gates acting", "weights"),
    # weights
    "spectral_radius": Variable(_PER_GATE, "max |eigenvalue| of the gate's recurrent block U"),
    "largest_singular_value": Variable(_PER_GATE, "largest singular value of U, its norm as a map"),
    "departure_from_normality": Variable(_PER_GATE, "√(‖U‖_F² − Σ|eigenvalue|²) / ‖U‖_F"),
    "orthogonality_distance": Variable(_PER_GATE, "‖UᵀU − I‖_F / √h"),
    "eigenvalue_real": Variable((*_PER_GATE, "unit"), "real part of U's eigenvalues, by modulus"),
    "eigenvalue_imag": Variable((*_PER_GATE, "unit"), "imaginary part of U's eigenvalues, by modulus"),
    "singular_value": Variable((*_PER_GATE, "unit"), "singular values of U, largest first"),
    # units
    "gate_mean": Variable((*_PER_GATE, "time"), "mean value of a gate over units and examples"),
    "saturation_margin": Variable((*_PER_GATE, "time"), "mean of min(v, 1 − v) of a sigmoid gate, of |φ'| of others"),
    "saturated": Variable((*_PER_GATE, "time"), "fraction of units and examples whose margin is below 0.1"),
    "dead_fraction": Variable(_PER_LAYER, "fraction of units whose slope is 0 at every step of every example"),
    "time_constant": Variable((*_PER_LAYER, "unit"), "−1 / mean log of the forget gate (LSTM) or z (GRU)", "steps"),
    "adjoint_c_through_c": Variable(
        (*_PER_LAYER, "time"), "RMS norm of the part of dL/dc_t that came by c", "loss / c"
    ),
    "adjoint_c_through_h": Variable(
        (*_PER_LAYER, "time"), "RMS norm of the part of dL/dc_t that came by h", "loss / c"
    ),
    # jacobians
    "step_norm": Variable((*_PER_LAYER, "time"), "σ_max of the step Jacobian, geometric mean over examples"),
    "window_log_singular": Variable(
        (*_PER_LAYER, "window", "mode"), "mean over examples of log₁₀ σ_i(∂state_T/∂state_t)", "decades"
    ),
    "window_log_condition": Variable((*_PER_LAYER, "window"), "mean over examples of log₁₀ σ_1/σ_n", "decades"),
    # lyapunov
    "lyapunov_exponent": Variable((*_PER_LAYER, "mode"), "Lyapunov exponents, mean over examples", "nats / step"),
    "lyapunov_error": Variable((*_PER_LAYER, "mode"), "standard error of the exponents over examples", "nats / step"),
    "kaplan_yorke": Variable(_PER_LAYER, "Kaplan–Yorke dimension of the mean exponents"),
    "local_exponent": Variable((*_PER_LAYER, "time"), "growth of the leading direction in this step", "nats / step"),
    # curvature
    "sharpness": Variable(("probe",), "largest eigenvalue of the loss's Hessian", "loss / parameter²"),
    "sharpness_error": Variable(("probe",), "an eigenvalue lies within this of the sharpness", "loss / parameter²"),
    "least_curvature": Variable(("probe",), "least eigenvalue of the loss's Hessian", "loss / parameter²"),
    "directional_sharpness": Variable(("probe",), "gᵀHg / ‖g‖²", "loss / parameter²"),
    "noise_scale": Variable(("probe",), "tr Σ / ‖G‖², gradient noise scale", "examples"),
    "gradient_square": Variable(
        ("probe",), "unbiased estimate of ‖G‖² of the expected gradient", "(loss / parameter)²"
    ),
    "gradient_variance": Variable(("probe",), "tr Σ, of one example's gradient", "(loss / parameter)²"),
    # updates
    "group_weight_norm": Variable(("probe", "group"), "norm of a parameter group", "parameter"),
    "group_gradient_ratio": Variable(("probe", "group"), "‖gradient‖ / ‖weights‖ of a group", "loss / parameter²"),
    "group_update_ratio": Variable(("probe", "group"), "‖update‖ / ‖weights‖ of a group"),
    "group_gradient_cosine": Variable(("probe", "group"), "cosine of this and the next gradient of a group"),
    "gradient_cosine": Variable(("probe",), "cosine of this and the next gradient"),
    "gradient_update_cosine": Variable(("probe",), "cosine of the update and the descent direction −gradient"),
    "effective_lr": Variable(("probe",), "learning rate times clip scale", "parameter² / loss"),
    "adjoint_histogram": Variable((*_PER_LAYER, "decade"), "steps and examples by log₁₀ ‖∂L/∂h_t‖", "count"),
    "adjoint_zero": Variable(_PER_LAYER, "fraction of ‖∂L/∂h_t‖ that are 0"),
    "adjoint_nonfinite": Variable(_PER_LAYER, "fraction of ‖∂L/∂h_t‖ that are Inf or NaN"),
}
"""What each record is. The last entry of `time` is an example's last valid step; `lag` = T − t counts from it."""

_TYPES = {"finite": "bool", "recorded": "bool", "adjoint_log_norm": "float64"}
"""All others are float32; a log₂ in the thousands has more digits."""


@functools.cache
def _zarr() -> Any:
    import zarr  # takes a quarter of a second, which `import seqdyn` need not

    # Once and for all threads: as a context, one thread's end would switch it off in the middle of another's write.
    zarr.config.set({"array.write_empty_chunks": True})
    return zarr


def local(path: Path) -> Any:
    """A folder as zarr takes it, whatever its name: '::' and '://' would mean something in a string."""
    return _zarr().storage.LocalStore(path)


class Store:
    """The records of one experiment on disk."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self.layout = path, layout

    def create(
        self, names: Iterable[str], coordinates: Mapping[str, list[Any]], own: Mapping[str, Variable] | None = None
    ) -> None:
        """Allocates all variables in `names` (those of every spec together) if they are not there yet.

        They are of `VARIABLES`, or users' `own`. `coordinates` gives the values of all axes but run, step, probe and
        time. Arrays are as long as `updates`; a run that goes on for longer has them resized, which moves nothing; so
        have those that were added.
        """
        known = VARIABLES | dict(own or {})
        wanted, axes = {name: known[name] for name in names}, self._sizes(dict.fromkeys(coordinates, 0))
        added = {n: of for n, of in self.there().items() if n not in wanted and {*axes, *of.axes} >= {*of.dims}}
        self.make(wanted | added, coordinates)

    def there(self) -> dict[str, Variable]:
        """What is on disk, as it says of itself."""
        found = {}
        for path in sorted(self.path.glob("*/zarr.json")):
            with contextlib.suppress(OSError, ValueError, KeyError):  # damaged, and made again if it is asked for
                said = json.loads(path.read_text(encoding="utf-8"))
                units = said["attributes"]["units"]
                dims = tuple(said["dimension_names"][1:])
                own = {axis: tuple(labels) for axis, labels in said["attributes"].get("axes", {}).items()}
                found[path.parent.name] = Variable(dims, said["attributes"]["long_name"], units, own)
        return found

    def fill(self, tile: Tile, number: int, metrics: Mapping[str, np.ndarray]) -> None:
        """The metrics [run, …] of a probe of one tile, where there is nothing yet."""
        root = _zarr().open_group(local(self.path), mode="r+")
        rows = slice(tile.index * self.layout.tile, (tile.index + 1) * self.layout.tile)
        for name, values in metrics.items():
            array: Any = root[name]
            if np.isnan(array[rows, number]).all():
                array[rows, number] = self._recorded(array, values)

    def _recorded(self, array: Any, values: np.ndarray) -> np.ndarray:
        return self.layout.thinned(values, [dim for dim in array.metadata.dimension_names if dim != "probe"])

    def make(self, variables: Mapping[str, Variable], coordinates: Mapping[str, list[Any]]) -> None:
        """The metadata of these variables on disk, where they are not there or others."""
        sizes = self._sizes({dim: len(values) for dim, values in coordinates.items()})
        wanted: dict[str, Any] = {}  # made in memory: what is on disk is then put right in whole files
        zarr = _zarr()
        root = zarr.open_group(zarr.storage.MemoryStore(wanted), mode="w")
        root.attrs["coordinates"] = dict(coordinates)
        for name, variable in variables.items():
            dims = ("row", *variable.dims)
            own = variable.axes
            shape = tuple(len(own[d]) if d in own else sizes[d] for d in dims)
            stretch = {"row": self.layout.tile, "step": self.layout.chunk, "probe": 1}
            root.create_array(
                name,
                shape=shape,
                chunks=tuple(min(stretch.get(d, n), n) for d, n in zip(dims, shape, strict=True)),
                dtype=_TYPES.get(name, "float32"),
                fill_value=False if _TYPES.get(name) == "bool" else np.nan,
                compressors=(zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()),
                dimension_names=dims,
                attributes={"long_name": variable.long_name, "units": variable.units} | ({"axes": own} if own else {}),
            )
        for name, buffer in wanted.items():
            path, data = self.path / name, buffer.to_bytes()
            if not path.is_file() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                with in_one_step(path) as partial:
                    partial.write_bytes(data)

    def digest(self) -> str:
        """SHA-256 of the metadata: names, shapes, types, coordinates."""
        sha = hashlib.sha256()
        for path in sorted([self.path / "zarr.json", *self.path.glob("*/zarr.json")]):
            sha.update(str(path.relative_to(self.path)).encode() + path.read_bytes())
        return sha.hexdigest()

    def _sizes(self, lengths: dict[str, int]) -> dict[str, int]:
        at = self.layout
        return lengths | {"row": at.rows, "step": at.updates, "probe": at.probes, "time": len(at.times)}

    def write(self, tile: Tile, start: int, metrics: Mapping[str, np.ndarray]) -> None:
        """The metrics [run, step, …] (or [run, …] of probe number `start`) of one tile's chunk."""
        root = _zarr().open_group(local(self.path), mode="r+")
        rows = slice(tile.index * self.layout.tile, (tile.index + 1) * self.layout.tile)
        kind = _kind(root[next(iter(metrics))])
        length = 1 if kind == "probe" else next(iter(metrics.values())).shape[1]
        # What this tile does not record is written as missing: a chunk that is not there is a chunk that was lost.
        for name, array in root.arrays():
            if _kind(array) == kind:
                if kind == "probe" and name not in metrics and self._readable(array, tile, start):
                    continue  # what a probe has seen after the fact
                values = self._recorded(array, metrics[name]) if name in metrics else array.fill_value
                array[rows, start if kind == "probe" else slice(start, start + length)] = values

    def whole_until(self, tile: Tile, step: int) -> int:
        """The updates, up to `step`, whose records of a tile can all be read, probes included.

        Reads every chunk: each is held against its checksum.
        """
        root = _zarr().open_group(local(self.path), mode="r")
        for _, array in root.arrays():
            for number, start in self._chunks(array, step):
                # A probe is recorded before the checkpoint of its update: it takes an earlier one to make it again.
                before = start - 1 if _kind(array) == "probe" else start
                if not self._readable(array, tile, number):
                    step = before
                    break
        return step

    def _readable(self, array: Any, tile: Tile, number: int) -> bool:
        if not self._file(array, tile, number).exists():
            return False
        try:
            array.get_block_selection((tile.index, number))
        except Exception:  # zarr's codecs raise several kinds for damaged bytes
            return False
        return True

    def sweep_up(self, tile: Tile) -> None:
        """Removes what killed writes of a tile have left."""
        for left in self.path.glob(f"*/c/{tile.index}/**/*.partial"):
            left.unlink()

    def check(self, digest: str | None) -> None:
        """Raises ConfigError if there are no records yet; RuntimeError if the metadata are not those of the manifest,
        or a chunk that was written is missing."""
        # What the manifest says of the records is noted once they have their shape, before the first is written.
        if digest is None and not any(self.path.glob("*/c")):
            raise ConfigError(f"{self.path.parent} has only begun: nothing is recorded yet.")
        cure = "run its command again, which makes the lost part again"
        try:
            right = digest is None or self.digest() == digest
            root = _zarr().open_group(local(self.path), mode="r")
        except (OSError, ValueError, KeyError):
            right = False
        if not right:
            raise RuntimeError(f"{self.path} is damaged: its metadata are not those noted in the manifest; {cure}.")
        done = {
            tile: max(checkpoint.steps(checkpoint.of_tile(self.path.parent, tile.index)), default=None)
            for tile in self.layout.tiles
        }
        for _, array in root.arrays():
            for tile, step in done.items():
                for number, _ in self._chunks(array, step) if step is not None else ():
                    if not self._file(array, tile, number).exists():
                        raise RuntimeError(f"{self._file(array, tile, number)} is missing; {cure}.")

    def _chunks(self, array: Any, step: int) -> list[tuple[int, int]]:
        """(number, first update) of each chunk of a tile that `step` updates have written."""
        at = self.layout
        if _kind(array) == "probe":
            return [(n, n * at.probe_every) for n in range(step // at.probe_every + 1)]
        return [(n, n * at.chunk) for n in range(-(-step // at.chunk))]

    def _file(self, array: Any, tile: Tile, number: int) -> Path:
        rest = ("0",) * (len(array.shape) - 2)
        return self.path.joinpath(array.path, "c", str(tile.index), str(number), *rest)


def _kind(array: Any) -> str:
    """'step' or 'probe': what an array has a value of. The store says so itself, whoever named the variable."""
    return array.metadata.dimension_names[1]


def load(path: str | Path) -> "xr.Dataset":
    """The records of a run directory with dimensions run, step, probe, time, layer, group, gate, and those of probes:
    unit, window (its lag T − t), mode, decade (a bin's lower edge).

    Every hyperparameter, the seed, the numbers of users' parts, and the spec's label, cell, activation and
    initialisation are coordinates of `run`; `step` and `probe_step` count updates done before the record; `lag` belongs
    to `time`. Runs that `seqdyn.extend` added follow the others. Values that do not exist (yet, or after a run has
    diverged) are NaN. Lazy: nothing is read until it is asked for.

    Raises ConfigError if this is no run directory or has nothing recorded yet, RuntimeError if records are missing;
    of damaged ones when they are read.
    """
    out, *inside = manifest.directories(path)
    if not inside:
        return alone(out)
    from seqdyn.runs import stacked  # imports xarray

    parts = []
    for one in (out, *inside):
        at, opened = layout(manifest.read(one)["experiment"]), (None, None, {})
        with contextlib.nullcontext() if one is out else contextlib.suppress(ConfigError):  # it has only begun
            opened = _opened(one)
        parts.append(stacked.Part(at, *opened[1:]))
    return _labelled(*stacked.stacked(parts), manifest.read(out) | {"experiment": manifest.described(path)})


def alone(path: str | Path) -> "xr.Dataset":
    """`load`, without the runs of directories that extend this one."""
    noted, ds, labels = _opened(manifest.directory(path))
    return _labelled(ds, labels, noted)


def _opened(path: Path) -> tuple[dict[str, Any], "xr.Dataset", dict[str, list[Any]]]:
    """(the manifest, the records without padding, the values of axes) of one directory."""
    from seqdyn.runs import sound  # imports xarray

    noted = manifest.read(path)
    at = layout(noted["experiment"])
    store = Store(path / "records.zarr", at)
    try:
        store.check(noted.get("records"))
    except RuntimeError:  # perhaps a run that goes on for longer is giving them their new shape
        with contextlib.suppress(OSError), gate(path):
            noted = manifest.read(path)
        store.check(noted.get("records"))
    raw = sound.opened(local(path / "records.zarr"), path / "records.zarr")
    rows = [tile.index * at.tile + i for tile in at.tiles for i in range(len(tile.runs))]
    own = {axis: labels for of in raw.data_vars.values() for axis, labels in of.attrs.pop("axes", {}).items()}
    return noted, raw.isel(row=rows).rename(row="run"), raw.attrs["coordinates"] | own


def _labelled(ds: "xr.Dataset", labels: Mapping[str, list[Any]], noted: Mapping[str, Any]) -> "xr.Dataset":
    """With the coordinates and attributes that the manifest says."""
    at = layout(noted["experiment"])
    per_run = points.per_run(noted["experiment"], at, {*ds.variables, *ds.dims, "probe_step", "lag"})
    # The number `window` gives way to the probes' axis of that name.
    coordinates: dict[str, Any] = {f"numbers_{k}" if k in ds.dims else k: ("run", v) for k, v in per_run.items()}
    coordinates |= {
        "run": np.arange(ds.sizes["run"]),
        "step": np.arange(ds.sizes["step"]),
        "probe_step": ("probe", np.arange(ds.sizes["probe"]) * at.probe_every),
        "time": at.times,
        "lag": ("time", at.steps - 1 - np.asarray(at.times), {"long_name": "steps before the last valid one, T − t"}),
    }
    coordinates |= {dim: values for dim, values in labels.items() if dim in ds.dims}
    said = {name: noted["experiment"][name] for name in ("name", "updates", "chunk", "probe_every", "tile")}
    said |= {f"{name}_version": of for name, of in noted.get("versions", {}).items() if name in ("seqdyn", "jax")}
    return ds.assign_coords(coordinates).drop_attrs(deep=False).assign_attrs(said)


def diverged(ds: "xr.Dataset") -> np.ndarray:
    """At which updates a run was no longer finite, [run, step] (of one run [step]); one that is not made yet says
    nothing."""
    recorded = ds["recorded"].values  # first, since a run that is still going writes it last
    return recorded & ~ds["finite"].values


def latest(probes: np.ndarray) -> np.ndarray:
    """Each run's newest value that exists, of [run, probe], else NaN."""
    there = ~np.isnan(probes)
    last = probes.shape[1] - 1 - there[:, ::-1].argmax(axis=1)
    return probes[np.arange(len(probes)), last]
