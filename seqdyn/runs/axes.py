"""The axes of a run directory's records: what each spec has of them, and all specs together.

A cell has its own gates, a network its own layers and parameter groups. The records of an experiment have room for
those of every spec, and NaN where one has none.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jax
import numpy as np

from seqdyn.data.tasks import VECTORS
from seqdyn.learn import context, model, network, probe_config, terms, train
from seqdyn.learn.config import Experiment, Spec
from seqdyn.learn.context import Variable
from seqdyn.measure import jacobians, updates
from seqdyn.norms import Extended
from seqdyn.numbers import Numbers
from seqdyn.runs.points import WORDS
from seqdyn.runs.records import VARIABLES
from seqdyn.types import ConfigError, Tree


def shapes(spec: Spec) -> train.TrainState:
    """A run's state as shapes and types, which do not depend on numbers."""
    numbers, structure = jax.tree.flatten(spec.arrays())
    return _shapes(structure, tuple(jax.ShapeDtypeStruct((), number.dtype) for number in numbers))


@cache
def _shapes(structure: Any, numbers: tuple[jax.ShapeDtypeStruct, ...]) -> train.TrainState:
    spec = jax.tree.unflatten(structure, numbers)
    vectors = jax.ShapeDtypeStruct((spec.vocabulary, spec.embedding), np.dtype(np.float32))
    return jax.eval_shape(lambda spec, v: train.init(spec, {VECTORS: v}), spec, vectors)


@cache
def axis_labels(spec: Spec) -> dict[str, list[Any]]:
    """The labels of one spec, axis by axis."""
    return {
        "layer": list(range(len(spec.widths))) if spec.network is None else list(network.scans(spec)),
        "group": list(model.groups(shapes(spec).params)),
        "window": list(jacobians.windows(spec.steps)),
        "gate": list(model.gates(spec)) if spec.network is None else [],
        "unit": list(range(max(spec.hidden))) if spec.network is None else [],
    }


def coordinates(experiment: Experiment) -> dict[str, list[Any]]:
    """The labels of all specs in the order of the first that has them, and of the axes that no spec decides."""
    merged: dict[str, dict[Any, None]] = {}
    for spec in experiment.specs:
        for axis, labels in axis_labels(spec).items():
            merged.setdefault(axis, {}).update(dict.fromkeys(labels))
    if any(isinstance(layer, str) for layer in merged["layer"]):  # beside networks with names for them
        merged["layer"] = dict.fromkeys(map(str, merged["layer"]))
    return {axis: list(labels) for axis, labels in merged.items()} | {
        "window": sorted({lag for spec in experiment.specs for lag in jacobians.windows(spec.steps)}),
        "mode": list(range(experiment.modes)),
        "decade": updates.DECADES[:-1].tolist(),
    }


def own_variables(experiment: Experiment) -> dict[str, Variable]:
    """Of users' records, terms and probes. Raises ConfigError for a name of the library, or with two meanings."""
    found: dict[str, Variable] = {}
    places = {"run", "row", "lag", "probe_step", *WORDS, *coordinates(experiment), *Numbers.__dataclass_fields__}
    places |= {"update", "example", "time_from_end", "experiment", "run_there"}  # axes of what is made of records
    ours = {*VARIABLES, *places, *(dim for variable in VARIABLES.values() for dim in variable.dims)}
    given = [("records", context.variables(spec) | terms.variables(spec)) for spec in experiment.specs]
    for field, variables in (*given, ("probes", probe_config.variables(experiment.probes))):
        for name, variable in variables.items():
            if name in ours or found.setdefault(name, variable) != variable:
                other = "the library has" if name in ours else "another records with other dims or units"
                raise ConfigError(f"{field} has {name!r}, which {other}; take another name.")
            for axis in ours & variable.axes.keys():
                raise ConfigError(f"{field} has {name!r}, whose axis {axis!r} the library has; take another name.")
        context.check_beside(field, {}, found)
    return found


def align_to_axes(
    values: Tree,
    name: str,
    spec: Spec,
    everything: dict[str, list[Any]],
    variables: Mapping[str, Variable],
    steps: int,
) -> np.ndarray:
    """What a spec recorded under `name` [run, …], as NumPy has it, at its places among `coordinates` and at the end of
    `steps` of time."""
    # The two halves of an `Extended` are added in float64.
    halves = (values.high, values.low) if isinstance(values, Extended) else (values,)
    found = np.asarray(halves[0]) if len(halves) == 1 else np.asarray(halves[0], np.float64) + np.asarray(halves[1])
    dims = ("run", *(d for d in variables[name].dims if d != "probe"))
    for axis, labels in axis_labels(spec).items():
        labels = [type(everything[axis][0])(label) for label in labels]
        if axis in dims and labels != everything[axis]:
            at = dims.index(axis)
            wide = np.full((*found.shape[:at], len(everything[axis]), *found.shape[at + 1 :]), np.nan, found.dtype)
            wide[(slice(None),) * at + ([everything[axis].index(label) for label in labels],)] = found
            found = wide
    if "time" in dims and spec.steps < steps:
        before = [(steps - spec.steps, 0) if dim == "time" else (0, 0) for dim in dims]
        found = np.pad(found, before, constant_values=np.nan)
    return found
