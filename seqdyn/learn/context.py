"""What an update shows of itself, and what users' records make of it."""

from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.building import is_real, kind_of, known_at_run_time
from seqdyn.data.batches import Batch
from seqdyn.fields import Fields
from seqdyn.parts import is_many, lenient, listed
from seqdyn.types import Array, ConfigError, Float, Int, Key, Tree


class Variable(NamedTuple):
    """One recorded quantity: its axes after `run` (of a user's record: after `run` and `step`), what it is, its unit,
    and the labels of those axes that only it has."""

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"
    axes: Mapping[str, Any] = {}
    """Axis -> its labels, numbers or words: dims ("quantile",), axes {"quantile": (0.1, 0.5, 0.9)}."""


DIMS = ("layer", "time", "group", "unit")
"""The axes that a record of one's own may share with those of the library."""


class Context(NamedTuple):
    """What a record sees of an update."""

    batch: Batch
    """What it was made on."""
    params: Tree
    """The parameters before it."""
    loss: Float[Array, ""]
    grads: Tree
    """Of loss and penalties together, before clipping."""
    updates: Tree
    """What is added to the parameters."""
    step: Int[Array, ""]
    """Updates done before it."""
    key: Key[Array, ""]
    """Its own, for what a record draws; the same for every record."""


LONGEST = 200
"""Bytes of a name: a file system takes 255, some of which the file has before it while it is written."""
A_NAME = f"an identifier of at most {LONGEST} bytes, since it names a folder"


def is_name(name: Any) -> bool:
    """Can something be recorded under it?"""
    return isinstance(name, str) and name.isidentifier() and len(name.encode()) <= LONGEST


def check_variables(where: str, record: Any) -> None:
    """Raises ConfigError where what a record says that it records cannot be recorded."""
    name, found = type(record).__name__, getattr(record, "variables", None)
    if not isinstance(found, dict) or not found or not all(isinstance(v, Variable) for v in found.values()):
        raise ConfigError(f"{where} is {name}, whose variables are {found!r:.80}; they must be a dict of Variable.")
    for key, variable in found.items():
        if not is_name(key):
            raise ConfigError(f"{where} is {name}, which records {key!r:.80}; the name must be {A_NAME}.")
        for text in ("long_name", "units"):
            if not isinstance(getattr(variable, text), str):
                wrong = f"{text} {getattr(variable, text)!r:.80}"
                raise ConfigError(f"{where} is {name}, whose '{key}' has the {wrong}; it must be a text.")
        dims, axes = variable.dims, variable.axes
        if not isinstance(axes, Mapping) or not all(isinstance(axis, str) and axis.isidentifier() for axis in axes):
            raise ConfigError(f"{where} is {name}, whose '{key}' has the axes {axes!r:.80}; they must be name: labels.")
        if not isinstance(dims, tuple) or not {*axes} <= {*dims} <= {*DIMS, *axes} or len({*dims}) < len(dims):
            raise ConfigError(
                f"{where} is {name}, whose '{key}' has the dims {dims!r:.80}; they must be a tuple of names among "
                f"{', '.join(DIMS)} and its own axes, each once."
            )
        for axis, given in axes.items():
            labels = [] if isinstance(given, Set | Iterator) or not is_many(given) else listed(given)
            right = {*map(type, labels)} in ({int}, {float}, {str}) and len({*labels}) == len(labels)
            if axis in DIMS or not right or any(one != one for one in labels):
                raise ConfigError(
                    f"{where} is {name}, whose axis {axis!r} has the labels {given!r:.80}; an axis of its own must "
                    "have a list of numbers, or of words, each once."
                )


def check_beside(field: str, there: Mapping[str, Variable], new: Mapping[str, Variable]) -> None:
    """Raises ConfigError for a new variable that is there with other axes; for an axis that has other labels elsewhere,
    or is the name of a variable."""
    labels: dict[str, Any] = {}
    for name, variable in (*there.items(), *new.items()):
        old = there.get(name, variable)
        if (old.dims, old.axes) != (variable.dims, variable.axes):
            raise ConfigError(f"{field} has {name!r}, which is recorded there with other axes; take another name.")
        for axis, of in variable.axes.items():
            if axis in there or axis in new or labels.setdefault(axis, of) != of:
                other = "has other labels elsewhere" if axis in labels else "is the name of a variable"
                raise ConfigError(f"{field} has {name!r}, whose axis {axis!r} {other}; take another name.")


def with_axes(variable: Variable, first: str) -> Variable:
    """A user's variable with its first axis, and the labels of its own as plain tuples."""
    axes = {axis: tuple(listed(labels)) for axis, labels in variable.axes.items()}
    return variable._replace(dims=(first, *variable.dims), axes=axes)


def variables(spec: Fields) -> dict[str, Variable]:
    """What a spec's own records, and its own network, record, with their axes after `run`."""
    network = [spec.network] if hasattr(spec.network, "variables") else []
    return {
        name: with_axes(variable, "step")
        for record in (*spec.records, *network)
        for name, variable in record.variables.items()
    }


def recorded(spec: Fields, context: Context, sizes: dict[str, int]) -> dict[str, Array]:
    """What a spec's own records say of an update, `sizes` those of dims. Raises ConfigError where they are not their
    `variables`."""
    found: dict[str, Array] = {}
    for record in spec.records:
        found |= checked(f"the record {type(record).__name__}", record.record, context, record.variables, sizes)
    return found


def checked(
    name: str, function: Callable[[Any], Any], seen: Any, wanted: dict[str, Variable], sizes: dict[str, int]
) -> dict[str, Array]:
    """`function(seen)`, in 32 bits. Raises ConfigError, calling it `name`, where that is not what is `wanted`."""
    with lenient(), known_at_run_time(name):
        said = function(seen)
    if not isinstance(said, dict) or said.keys() != wanted.keys():
        got = list(said) if isinstance(said, dict) else kind_of(said)
        raise ConfigError(f"{name} returns {got}; it must be a dict of {list(wanted)}.")
    found: dict[str, Array] = {}
    for key, value in said.items():
        own = {axis: len(listed(labels)) for axis, labels in wanted[key].axes.items()}
        right = tuple((sizes | own)[dim] for dim in wanted[key].dims)
        if not is_real(value):
            raise ConfigError(f"{name} gives '{key}' {kind_of(value)}; it must be an array of real numbers.")
        if jnp.shape(value) != right:
            raise ConfigError(
                f"{name} gives '{key}' the shape {jnp.shape(value)}; its dims {wanted[key].dims} have {right}."
            )
        known = not isinstance(value, jax.Array)  # NumPy casts what JAX would cut to 32 bits first
        found[key] = jnp.asarray(np.asarray(value, np.float32) if known else value.astype(jnp.float32))
    return found
