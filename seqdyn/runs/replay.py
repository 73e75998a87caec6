"""The same updates again, bit for bit, at full resolution: λ_t itself, states, gates and batches."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from seqdyn import parts
from seqdyn.measure import full
from seqdyn.runs import again, axes, manifest, records, sweep
from seqdyn.runs.records import VARIABLES
from seqdyn.types import ConfigError, whole

if TYPE_CHECKING:
    import xarray as xr

BATCH = ("xs", "ys", "mask", "rows")
"""What there is of a batch."""


def replay(path: str | Path, run: int, start: int, stop: int, record: Any = "all", data: Any = None) -> "xr.Dataset":
    """Makes updates `start` to `stop` − 1 of run `run` of a run directory again, and reads them at full resolution.

        h, c, adjoint, adjoint_c                               [update, layer, time, example, unit]
        gate_value, gate_slope                                 [update, layer, gate, time, example, unit]
        example_adjoint_norm, example_adjoint_log_norm         [update, layer, time, example]
        xs, ys, mask, rows                                     [update, …], the batch
        loss, grad_norm, clip_scale, adjoint_norm, …           as the records have them

    λ_t is of each example's own loss. `time` is the step in the batch; for the records' own variables it is theirs,
    and called `time_from_end` (for a layer that reads backwards it ends at the first step). A cell without c or `units`
    has no c and no gates; under dropout of the recurrence there are no gates either. A network that is no stack has
    the third line alone, for its watched scans. Where a narrower layer has no unit, there is NaN.

    Training goes on from the nearest state at or before `start`: a checkpoint, a kept state, or the start of the run.
    Every recorded number of these updates is compared with what is made. They are equal to the last bit, or
    RuntimeError says which is not, as on another processor. What the records do not have is made by another program,
    from the same parameters and batch, and is equal to rounding.

    `record` is 'all' or some of the names; `data` are what the experiment was run on, None for a sampled task. Nothing
    in the directory changes. Raises ConfigError as `seqdyn.restore`; for updates that the run has not made, names that
    are not there, data that do not fit; and, with the size, if this takes more than half of the memory.
    """
    given, number = path, run
    path, run = manifest.holding(path, number)
    one = records.alone(path).isel(run=run)
    made = _made(one)
    start, stop = whole("start", start, 0), whole("stop", stop)
    if not start < stop <= made:
        raise ConfigError(
            f"start and stop are {start} and {stop}; start must be before stop, and stop at most {made}, the updates "
            f"that run {number} of {given} has made."
        )
    experiment = manifest.experiment(path)
    data = again.checked(experiment, data)
    place, point = experiment.layout.place(run)
    tile, row = experiment.layout.holding(place, point)
    of = again.of_tile(path, experiment, tile, data, row)
    row -= of.rows.start
    spec = experiment.specs[place]
    looked = full.program(jax.tree.structure(spec))

    def alone(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: np.asarray(leaf)[row], tree)

    _, states = of.near(start)
    own = alone(of.runs)
    given = (jax.tree.leaves(own), alone(states), data)
    shapes = _named(spec, jax.eval_shape(looked, *given))
    recorded = sorted(str(name) for name, of in one.data_vars.items() if of.dims[:1] == ("step",))
    recorded.remove("recorded")
    names = _asked(record, [*shapes, *recorded])
    wanted = {name: shape for name, shape in shapes.items() if name in names}
    gates = _gates(spec, jax.eval_shape(looked, *given))
    _check_memory(wanted, stop - start)
    found = {name: np.empty((stop - start, *shape), dtype) for name, (_, shape, dtype) in wanted.items()}
    states = of.onwards(states, start)
    old = one[recorded].isel(step=slice(start, stop)).load()
    variables = VARIABLES | axes.own_variables(experiment)
    places = axes.coordinates(experiment), variables, experiment.layout.steps
    for n in range(start, stop):
        before = states
        states, metrics = sweep.part(of.programs, of.runs, states, data, experiment.chunk, n + 1)
        for name, values in metrics.items():
            mine = jax.tree.map(lambda leaf: leaf[row : row + 1], values)
            new = experiment.layout.thinned(
                axes.align_to_axes(mine, name, spec, *places), ("run", *variables[name].dims)
            )
            _hold(old[name].values[n - start], new[0, 0], name, int(number), n)
        if wanted:
            seen = jax.device_get(looked(given[0], alone(before), data))
            for name, values in _values(spec, seen, wanted).items():
                found[name][n - start] = values
    labels = {"layer": axes.axis_labels(spec)["layer"], "gate": gates}
    others = old[[name for name in names if name not in found]].assign_coords(run=int(number))
    return _dataset(others, labels, wanted, found, range(start, stop))


def _made(one: "xr.Dataset") -> int:
    """How many updates a run has made, that which broke it included."""
    gone = records.diverged(one)
    return int(gone.argmax()) + 1 if gone.any() else int(one["recorded"].values.sum())


def _asked(record: Any, names: list[str]) -> list[str]:
    asked = parts.listed(record)
    if asked == ["all"]:
        return names
    of = {name: [one for one in names if one.startswith(f"{name}.")] for name in BATCH}
    asked = [one for name in asked for one in (of.get(name) if isinstance(name, str) else None) or [name]]
    odd = [name for name in asked if not isinstance(name, str) or name not in names]
    if odd or not asked:
        what = repr(odd[0]) if odd else "empty"
        raise ConfigError(f"record has {what:.60}; it must be 'all' or names among {', '.join(names)}.")
    return asked


def _hold(old: np.ndarray, new: np.ndarray, name: str, run: int, n: int) -> None:
    """Raises RuntimeError where what was made again is not what was recorded."""
    if not np.array_equal(new.astype(old.dtype), old, equal_nan=old.dtype.kind == "f"):
        raise RuntimeError(
            f"update {n} of run {run}, made again here, has another {name} than was recorded: it takes the processor, "
            "versions and settings that the manifest names."
        )


# --- at full resolution ---------------------------------------------------------------------------------------


def _named(spec: Any, shapes: full.Full) -> dict[str, tuple[tuple[str, ...], tuple[int, ...], Any]]:
    """name -> (dims, shape, type) of what there is of an update."""
    found: dict[str, tuple[tuple[str, ...], tuple[int, ...], Any]] = {}
    sizes = {"layer": len(shapes.layers), "gate": len(_gates(spec, shapes))}
    for i, dim in enumerate(("time", "example", "unit")):
        sizes[dim] = max([leaf.shape[i] for leaf in jax.tree.leaves(shapes.layers) if leaf.ndim > i], default=0)
    for name, dims in full.DIMS.items():
        leaves = jax.tree.leaves([layer.get(name) for layer in shapes.layers])
        if leaves:
            found[name] = (dims, tuple(sizes[dim] for dim in dims), np.dtype(leaves[0].dtype))
    for name in BATCH:
        leaves = jax.tree_util.tree_leaves_with_path(getattr(shapes.batch, name))
        for path, leaf in leaves:
            key = ".".join([name, jax.tree_util.keystr(path, simple=True, separator=".")]).rstrip(".")
            found[key] = (_axes(key, leaf.shape, spec, sizes), leaf.shape, np.dtype(leaf.dtype))
    return found


def _axes(name: str, shape: tuple[int, ...], spec: Any, sizes: dict[str, int]) -> tuple[str, ...]:
    """Of an array of a batch: time before examples where it has both, and a network's scans are as long and as wide."""
    first = ("time", "example") if shape[:2] == (spec.steps, spec.batch) else ()
    first = first or (("example",) if shape[:1] == (spec.batch,) else ())
    if any(sizes[dim] not in (0, n) for dim, n in zip(first, shape, strict=False)):
        first = ()
    return (*first, *(f"{name}_axis_{i}" for i in range(len(first), len(shape))))


def _gates(spec: Any, seen: full.Full) -> list[str]:
    """Of all layers together; first those that the records have, in their order."""
    there = {gate: None for layer in seen.layers for gate in layer.get("gate_value", ())}
    return [
        *(gate for gate in axes.axis_labels(spec)["gate"] if gate in there),
        *sorted({*there} - {*axes.axis_labels(spec)["gate"]}),
    ]


def _values(spec: Any, seen: full.Full, wanted: dict[str, Any]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    gates = _gates(spec, seen)
    for name, (dims, shape, dtype) in wanted.items():
        if name not in full.DIMS:
            first, _, rest = name.partition(".")
            leaves = jax.tree_util.tree_leaves_with_path(getattr(seen.batch, first))
            keys = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
            found[name] = np.asarray(keys[rest])
            continue
        values = np.full(shape, np.nan, dtype)
        for i, layer in enumerate(seen.layers):
            of = layer.get(name)
            if of is None:
                continue
            for at, leaf in [((i, gates.index(g)), leaf) for g, leaf in of.items()] if "gate" in dims else [((i,), of)]:
                into = values[at]
                # The end of a scan lies at the end of time, as in the records.
                into[(slice(into.shape[0] - leaf.shape[0], None), *map(slice, leaf.shape[1:]))] = leaf
        found[name] = values
    return found


def _check_memory(wanted: dict[str, Any], updates: int) -> None:
    size = updates * sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for _, shape, dtype in wanted.values())
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > there / 2:
        raise ConfigError(
            f"start and stop ask for {updates} updates of {size / updates / 2**20:.3g} MiB, {size / 2**30:.3g} GiB in "
            f"all; it must be at most half of the memory, {there / 2**31:.3g} GiB: take fewer, or name a few in record."
        )


def _dataset(
    old: "xr.Dataset",
    labels: dict[str, list[Any]],
    wanted: dict[str, Any],
    found: dict[str, np.ndarray],
    updates: range,
) -> "xr.Dataset":
    import xarray as xr  # takes two seconds

    # Of the records, `time` ends at each example's last step: another axis than the batch's own.
    old = old.drop_vars(["time", "step", "probe_step"], errors="ignore")
    old = old.rename({a: b for a, b in (("step", "update"), ("time", "time_from_end")) if a in old.dims})
    arrays = {
        name: (("update", *dims), found[name], {"long_name": full.NAMES.get(name, f"{name} of the batch")})
        for name, (dims, _, _) in wanted.items()
    }
    if "layer" in old.coords:  # words beside networks with names for them
        labels = labels | {"layer": [type(old["layer"].values[0].item())(label) for label in labels["layer"]]}
    ds = xr.Dataset(arrays).assign_coords(update=list(updates))
    ds = ds.assign_coords({dim: values for dim, values in labels.items() if dim in ds.dims})
    return xr.merge([ds, old], join="outer", compat="override", combine_attrs="drop").assign_attrs(old.attrs)
