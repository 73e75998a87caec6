"""Users' parts in a `Spec`: what each must build, checked before anything is compiled, and built inside the trace.

A part stands where a word stands. `layers` are parts with `build(inputs) -> Cell`, a `task` has `build() -> Drawn`, an
`optimizer` has `build() -> optax.GradientTransformation`, whose updates are added to the parameters as they are, and
each of `records` has `variables` and `record(context)`.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqdyn.data import custom
from seqdyn.data.batches import Batch, Task
from seqdyn.data.custom import Drawn
from seqdyn.data.tasks import TASKS
from seqdyn.grids import mapped
from seqdyn.nets.cells import Cell, step
from seqdyn.parts import check_structure, is_part, lenient, within
from seqdyn.types import Array, ConfigError, Float, Int, Key, Tree, whole

if TYPE_CHECKING:
    from seqdyn.learn.config import Spec

INNER = ("recurrent_step", "recurrent", "variational", "candidate", "zoneout")
"""The kinds of dropout that act inside the recurrence."""
_WORDS = {
    "layers": ("cell", "activation", "w_init", "u_init", "chrono", "normalise", "floss"),
    "optimizer": ("schedule",),
    "task": ("monte_carlo",),
}
"""The words of a spec that mean nothing where a field holds parts."""
_TRAINED = (jnp.float32, jnp.float64)
UNHEEDED = {
    "layers": ("gain", "input_gain", "norm_gain", "forget_bias", "longest"),
    "optimizer": ("lr", "momentum", "weight_decay", "warmup", "decay_steps", "decay_rate"),
}
"""The numbers of `Hypers` that nobody heeds where a field holds parts."""


class Variable(NamedTuple):
    """One recorded quantity: its axes after `run` (of a user's record: after `run` and `step`), what it is, and its
    unit."""

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"


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


# --- what is wrong, in one sentence ---------------------------------------------------------------------------


def fitted(spec: "Spec") -> dict[str, Any]:
    """The fields of a spec that its parts decide: `steps`, `hidden`, and what stands in its place as a tuple.

    Raises ConfigError for a part of another kind than its field's, and where what parts build does not fit.
    """
    found: dict[str, Any] = {}
    for name in ("layers", "records"):
        value = getattr(spec, name)
        found[name] = (value,) if is_part(value) else value
        if not isinstance(found[name], tuple):
            raise ConfigError(f"{name} is {value!r:.80}; it must be a tuple of parts.")
        for i, one in enumerate(found[name]):
            _check_part(f"{name}[{i}]", one, "build" if name == "layers" else "record")
    for name in ("task", "optimizer"):
        value = getattr(spec, name)
        if is_part(value) or callable(value) or hasattr(value, "update"):  # all else is refused as no word
            _check_part(name, value, "build")
    names: set[str] = set()
    for i, one in enumerate(found["records"]):
        _check_variables(f"records[{i}]", one)
        for name in names & one.variables.keys():
            raise ConfigError(f"records[{i}] is {type(one).__name__}, which records {name!r} as another does.")
        names |= one.variables.keys()
    # Numbers as shapes: a grid's are [r], and nothing that is checked here depends on a value.
    task, optimizer = (part if is_part(part) else None for part in (spec.task, spec.optimizer))
    parts = (task, optimizer, found["layers"])
    like = mapped(
        parts, lambda _, allowed, value: jax.ShapeDtypeStruct((), jnp.int32 if allowed.whole else jnp.float32)
    )
    numbers, tree = jax.tree.flatten(like)
    jax.eval_shape(lambda numbers: _check_built(spec, found, *jax.tree.unflatten(tree, numbers)), numbers)
    _check_words(spec, found)
    return found


def _check_words(spec: "Spec", found: dict[str, Any]) -> None:
    """Nothing may be said that nobody heeds, as there is a part in its place."""
    default = {f.name: f.default for f in dataclasses.fields(spec)}
    own = {"layers": found["layers"][:1], "optimizer": (spec.optimizer,), "task": (spec.task,)}
    called = {name: type(one).__name__ for name, parts in own.items() for one in parts if is_part(one)}
    for field, part in called.items():
        for name in _WORDS[field]:
            if getattr(spec, name) != default[name]:
                raise ConfigError(f"{name} is {getattr(spec, name)!r} and {field} has {part}; leave {name} out.")
    for name, field in (("steps", "task"), ("hidden", "layers")):
        value = getattr(spec, name)
        if name in found and value not in (found[name], default[name]):
            raise ConfigError(
                f"{name} is {value!r} and those of {called[field]} are {found[name]!r}; leave {name} out."
            )
    if called and not isinstance(spec.penalties, tuple):
        raise ConfigError(f"penalties is {spec.penalties!r:.80}; it must be a tuple of names.")
    of_words = {"layers": {"l1", "l2", "l0", "l1_proximal", "orthogonality", "omega"}, "optimizer": {"l1_proximal"}}
    for field, part in called.items():
        odd = [name for name in spec.penalties if name in of_words.get(field, ())]
        if odd:
            raise ConfigError(f"penalties has {odd[0]!r} and {field} has {part}, which it does not know; leave it out.")
    if "layers" in called and spec.dropout in INNER:
        raise ConfigError(
            f"dropout is {spec.dropout!r} and layers has {called['layers']}; it must be outside of cells."
        )
    if "layers" in called and spec.optimizer == "adamw":
        raise ConfigError(
            f"optimizer is 'adamw' and layers has {called['layers']}, of which it does not know what decays; take a "
            "part that builds optax.adamw."
        )


def unheeded(spec: "Spec") -> dict[str, Any]:
    """Number of `Hypers` -> the part of a spec in whose place there is nobody who heeds it."""
    own = {"layers": spec.layers[0] if spec.layers else None, "optimizer": spec.optimizer}
    return {name: own[field] for field, names in UNHEEDED.items() if is_part(own[field]) for name in names}


def _check_part(where: str, value: Any, method: str) -> None:
    if isinstance(value, type):
        raise ConfigError(f"{where} is the class {value.__name__}; it must be one of it, {value.__name__}(…).")
    check_structure(where, value)
    if not is_part(value):
        raise ConfigError(f"{where} is {value!r:.80}; it must be a part.")
    if not callable(getattr(value, method, None)):
        raise ConfigError(f"{where} is {type(value).__name__}, which has no {method}(); it must have one.")
    if method == "record" and not _takes(value.record, None):
        given = inspect.signature(value.record)
        raise ConfigError(f"{where} is {type(value).__name__}, whose record takes {given}; it must take a context.")


def check_alone(value: Any) -> None:
    """Raises ConfigError for a part, or one within it, whose methods read variables of a function around the class:
    two classes of one name would be one experiment."""
    methods = [(type(one), *of) for one in within(value) if is_part(one) for of in vars(type(one)).items()]
    for cls, name, method in methods:
        code: Any = getattr(method, "__code__", None)
        free = [v for v in code.co_freevars if v != "__class__"] if code and not name.startswith("__") else []
        if free:
            raise ConfigError(
                f"{name} of {cls.__name__} reads {free[0]!r} of the function around the class; write the class at the "
                "top of a file, and what it needs as fields."
            )


def _takes(function: Any, *given: Any) -> bool:
    try:
        inspect.signature(function).bind(*given)
    except TypeError:
        return False
    return True


def _check_variables(where: str, record: Any) -> None:
    name, found = type(record).__name__, getattr(record, "variables", None)
    if not isinstance(found, dict) or not found or not all(isinstance(v, Variable) for v in found.values()):
        raise ConfigError(f"{where} is {name}, whose variables are {found!r:.80}; they must be a dict of Variable.")
    for key, variable in found.items():
        if not isinstance(key, str) or not key.isidentifier():
            raise ConfigError(f"{where} is {name}, which records {key!r:.80}; the name must be an identifier.")
        dims = variable.dims
        if not isinstance(dims, tuple) or not {*dims} <= {"layer", "time", "group", "unit"} or len({*dims}) < len(dims):
            raise ConfigError(
                f"{where} is {name}, whose '{key}' has the dims {dims!r:.80}; they must be a tuple of names among "
                "layer, time, group, unit, each once."
            )


def _check_built(spec: "Spec", found: dict[str, Any], task: Any, optimizer: Any, layers: tuple[Any, ...]) -> None:
    inputs = _read_by_words(spec) if layers else 1
    if task is not None:
        whole("batch", spec.batch)
        drawn = built("task", task, Drawn, "what seqdyn.task(…) returns")
        inputs = drawn.inputs
        with _unknown(f"task is {type(task).__name__}"):
            found["steps"] = custom.shapes(spec, type(task).__name__, drawn)
    if layers:
        found["hidden"] = _check_cells(layers, inputs, 2 if spec.bidirectional else 1)
    if optimizer is not None:
        made_optimizer(optimizer)  # it is tried on the network's own parameters before anything is compiled


def _read_by_words(spec: "Spec") -> int:
    """Numbers a step that the lowest cell reads where the task is a word; 1 where validation has yet to refuse it."""
    try:
        return spec.embedding or spec.vocabulary or TASKS[spec.task](spec).inputs or 1
    except (ConfigError, ArithmeticError, LookupError, TypeError, ValueError):
        return 1


@contextlib.contextmanager
def _unknown(name: str) -> Iterator[None]:
    """What a part's functions must not do: ask Python for a number that is known when it runs."""
    try:
        yield
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ) as error:
        raise ConfigError(
            f"{name}, which asks for the value of a number in Python; use jax.numpy of it (jnp.where for if), or make "
            "it a field that is no number()."
        ) from error


def _check_cells(layers: tuple[Any, ...], inputs: int, ways: int) -> tuple[int, ...]:
    widths = []
    for i, layer in enumerate(layers):
        name = f"layers[{i}] is {type(layer).__name__}"
        cell = made_cell(f"layers[{i}]", layer, inputs)
        with _unknown(name):
            carry, params = cell.rest((3,)), cell.init(jax.random.key(0))
        h = getattr(carry, "h", None)
        if not hasattr(carry, "_replace") or h is None or h.ndim != 2 or h.shape[0] != 3 or h.dtype not in _TRAINED:
            found = _shape(carry), _types(carry)
            raise ConfigError(f"{name}, whose carry is {found} for 3 sequences; its h must be floats [*b, h].")
        if not all(leaf.dtype in _TRAINED for leaf in jax.tree.leaves(params)):
            raise ConfigError(
                f"{name}, whose init gives {_types(params)}; parameters must be 32-bit floats, as they are trained."
            )
        with _unknown(name):
            after = step(cell, params, carry, jnp.zeros((3, inputs)))
        if _shape(after) != _shape(carry):
            raise ConfigError(f"{name}, whose step goes from {_shape(carry)} to {_shape(after)}; it must be the same.")
        widths.append(h.shape[-1])
        inputs = ways * widths[-1]
    return tuple(widths)


def _shape(tree: Any) -> Any:
    return jax.tree.map(jnp.shape, tree)


def _types(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: str(leaf.dtype), tree)


# --- built ----------------------------------------------------------------------------------------------------


def built(where: str, part: Any, kind: type, right: str, *given: Any) -> Any:
    """What a part builds. Raises ConfigError if that is not of the kind, `right` in words."""
    name = f"{where} is {type(part).__name__}"
    if not _takes(part.build, *given):
        takes = "inputs" if given else "nothing"
        raise ConfigError(f"{name}, whose build takes {inspect.signature(part.build)}; it must take {takes}.")
    with lenient(), _unknown(name):
        made = part.build(*given)
    if not isinstance(made, kind):
        raise ConfigError(f"{name}, whose build returns {made!r:.60}; it must return {right}.")
    return made


def made_cell(where: str, layer: Any, inputs: int) -> Cell:
    """The cell of one layer."""
    cell = built(where, layer, Cell, "a seqdyn.Cell, as seqdyn.cell(…) does", inputs)
    functions: dict[str, Any] = {name: lenient()(f) for name, f in cell._asdict().items() if callable(f)}
    return cell._replace(**functions)


def made_optimizer(optimizer: Any) -> optax.GradientTransformation:
    """An optimiser whose state has definite types, and keeps them; its keys are numbers, as a checkpoint has them.

    Its `update` raises ConfigError where the rule wants more than gradients and parameters, or gives other shapes.
    """
    name = f"optimizer is {type(optimizer).__name__}"
    rule = built("optimizer", optimizer, optax.GradientTransformation, "an optax.GradientTransformation")

    def cast(new: Any, old: Any) -> Array:
        return jnp.asarray(new).astype(old.dtype)

    def is_key(leaf: Any) -> bool:
        return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)

    def numbers(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return jax.random.key_data(leaf) if is_key(leaf) else cast(leaf, leaf)

    def init(params: Tree) -> Any:
        with lenient(), _unknown(name):
            return jax.tree.map(numbers, rule.init(params))

    def update(updates: Tree, state: Any, params: Any = None) -> tuple[Tree, Any]:
        with lenient(), _unknown(name):
            like = jax.eval_shape(lambda p: jax.tree.map(jnp.asarray, rule.init(p)), params)
            given = jax.tree.map(lambda of, leaf: jax.random.wrap_key_data(leaf) if is_key(of) else leaf, like, state)
            try:
                made, after = rule.update(updates, given, params)
            except TypeError as error:
                if "required keyword" not in str(error):
                    raise
                raise ConfigError(f"{name}, whose update needs more than gradients and parameters: {error}.") from error
        if jax.tree.structure(made) != jax.tree.structure(updates) or _shape(made) != _shape(updates):
            raise ConfigError(f"{name}, whose updates have the shapes {_shape(made)}; they must be the parameters'.")
        return jax.tree.map(cast, made, updates), jax.tree.map(lambda n, o: cast(numbers(n), o), after, state)

    return optax.GradientTransformation(init, update)


def task_of(spec: "Spec") -> Task:
    """The task of a spec, a word's or a part's."""
    if isinstance(spec.task, str):
        return TASKS[spec.task](spec)
    return custom.whole_task(spec, built("task", spec.task, Drawn, "what seqdyn.task(…) returns"))


def variables(spec: "Spec") -> dict[str, Variable]:
    """What a spec's own records are, with their axes after `run`."""
    return {
        name: variable._replace(dims=("step", *variable.dims))
        for record in spec.records
        for name, variable in record.variables.items()
    }


def recorded(spec: "Spec", context: Context, sizes: dict[str, int]) -> dict[str, Array]:
    """What a spec's own records say of an update, `sizes` those of dims. Raises ConfigError where they are not their
    `variables`."""
    found: dict[str, Array] = {}
    for record in spec.records:
        name, wanted = f"the record {type(record).__name__}", record.variables
        with lenient(), _unknown(name):
            said = record.record(context)
        if not isinstance(said, dict) or said.keys() != wanted.keys():
            got = list(said) if isinstance(said, dict) else type(said).__name__
            raise ConfigError(f"{name} returns {got}; it must be a dict of {list(wanted)}.")
        for key, value in said.items():
            right = tuple(sizes[dim] for dim in wanted[key].dims)
            if (not hasattr(value, "shape") and not isinstance(value, int | float)) or jnp.iscomplexobj(value):
                raise ConfigError(f"{name} gives '{key}' a {type(value).__name__}; it must be an array of numbers.")
            if jnp.shape(value) != right:
                raise ConfigError(
                    f"{name} gives '{key}' the shape {jnp.shape(value)}; its dims {wanted[key].dims} have {right}."
                )
            found[key] = jnp.asarray(value).astype(jnp.float32)
    return found
