"""The cell of each level of a spec, built and checked: parts of `Spec.layers`, or those that words are the names of."""

import inspect
from typing import Any, get_args

import jax
import jax.numpy as jnp

from seqdyn.building import (
    built,
    check_repeats,
    is_real,
    kind_of,
    known_at_run_time,
    other_leaf,
    shapes_of,
    takes,
    types_of,
    users,
)
from seqdyn.fields import CellName, Fields
from seqdyn.nets import statistics
from seqdyn.nets.cells import Cell, step
from seqdyn.nets.inits import INITS
from seqdyn.nets.levels import GRU, LSTM, RNN, Dense, DensePerPosition, Level
from seqdyn.nets.stack import Layer
from seqdyn.nets.wrappers import Wrapper
from seqdyn.parts import Part, lenient
from seqdyn.types import Array, ConfigError, Float, Key

_TRAINED = (jnp.float32, jnp.float64)


def levels(spec: Fields) -> tuple[Part, ...]:
    """The parts of a spec's levels, bottom first; of words with the numbers of `Numbers`."""
    if spec.layers:
        return spec.layers
    w, u = INITS[spec.w_init](spec.numbers.input_gain), INITS[spec.u_init](spec.numbers.gain)
    longest = spec.numbers.longest if spec.chrono else None

    def level(h: int) -> Level:
        match spec.cell:
            case "rnn":
                return RNN(h, spec.activation, w, u)
            case "lstm":
                return LSTM(h, w, u, chrono=longest) if spec.chrono else LSTM(h, w, u, spec.numbers.forget_bias)
            case "gru" | "gru_reset_before":
                return GRU(h, w, u, longest, reset_before=spec.cell == "gru_reset_before")
            case "dense":
                return Dense(h, spec.activation, w)
            case "dense_per_position":
                return DensePerPosition(h, spec.activation, w, spec.steps)
        raise ConfigError(f"cell is {spec.cell!r}; it must be one of {', '.join(get_args(CellName))}.")

    return tuple(map(level, spec.hidden))


def known(level: Part) -> bool:
    """Is it one of the library's, whose weights have names and whose gates can be looked at?"""
    return isinstance(level, Level | Wrapper) and type(level).__module__.startswith("seqdyn.")


def trains_apart(level: Part) -> bool:
    """Is it another cell in training? See `nets.wrappers`."""
    return callable(getattr(level, "build_training", None))


def is_random(level: Part) -> bool:
    """Is something of it random in training?"""
    return trains_apart(level) and callable(getattr(level, "noise", None))  # which may be a number of its own


def own(spec: Fields) -> str | None:
    """The class of the first of a spec's levels that is none of the library's."""
    return next((type(level).__name__ for level in spec.layers if not known(level)), None)


def said(spec: Fields, kind: Any) -> str | None:
    """The first of a spec's levels that is of the kind, in words; None where there is none."""
    found = next((type(level).__name__ for level in levels(spec) if isinstance(level, kind)), None)
    return found and (f"layers has {found}" if spec.layers else f"cell is '{spec.cell}'")


def made_cell(where: str, level: Part, inputs: int, real: Any = jnp.float32, training: bool = False) -> Cell:
    """The cell of one level, in `training` that of its `build_training`. `real`, the type of its parameters, is for
    the library's, and for a `build` whose second argument is called `dtype`."""
    method = "build_training" if training and trains_apart(level) else "build"
    build = getattr(level, method)
    names = list(inspect.signature(build).parameters) if takes(build, inputs, real) else []
    given = (inputs, real) if names[1:2] == ["dtype"] else (inputs,)
    cell = built(where, level, Cell, "a seqdyn.Cell, as seqdyn.cell(…) does", *given, method=method)
    if known(level):
        return cell
    functions: dict[str, Any] = {name: lenient()(f) for name, f in cell._asdict().items() if callable(f)}
    return cell._replace(**functions)


def check_cells(layers: tuple[Any, ...], inputs: int, ways: int, steps: int) -> tuple[int, ...]:
    """The widths of the cells that `layers` build, each on the one below, for sequences of `steps`. Raises ConfigError
    where one does not fit."""
    widths = []
    for i, layer in enumerate(layers):
        cell = made_cell(f"layers[{i}]", layer, inputs)
        widths.append(layer.hidden if known(layer) else _width(f"layers[{i}] is {type(layer).__name__}", cell, inputs))
        begun = cell.init(jax.random.key(0))
        if users(layer):
            check_repeats(f"init of {type(layer).__name__}", cell.init, jax.random.key(0))
        if not known(layer):
            _check_training(f"layers[{i}]", layer, cell, inputs, steps, begun)
        inputs = ways * widths[-1]
    return tuple(widths)


def noise(level: Part, key: Key[Array, ""], steps: int, batch: int) -> Float[Array, "t b m"]:
    """What a level that is random in training reads beside its inputs. ConfigError if that is of another shape."""
    name = f"layers has {type(level).__name__}"
    if not takes(level.noise, key, steps, batch):
        raise ConfigError(
            f"{name}, whose noise takes {inspect.signature(level.noise)}; it must take key, steps and batch."
        )
    with lenient(), known_at_run_time(name):
        made = level.noise(key, steps, batch)
    if not is_real(made):
        raise ConfigError(f"{name}, whose noise is {kind_of(made)}; it must be an array of real numbers.")
    made = jnp.asarray(made)
    if made.ndim != 3 or made.shape[:2] != (steps, batch):
        raise ConfigError(
            f"{name}, whose noise is {made.dtype} {made.shape} for {steps} steps of {batch} sequences; it must be "
            f"real, ({steps}, {batch}, numbers a step)."
        )
    return made if jnp.issubdtype(made.dtype, jnp.floating) else made.astype(jnp.float32)  # a mask may be of bools


def _check_training(where: str, level: Part, judged: Cell, inputs: int, steps: int, begun: Any) -> None:
    """Raises ConfigError where a level of one's own has no cell for training that goes with that of evaluation."""
    name, width = f"{where} is {type(level).__name__}", 0
    if callable(getattr(level, "noise", None)) and not trains_apart(level):
        raise ConfigError(f"{name}, which has noise() alone; it must have noise() and build_training().")
    cell = made_cell(where, level, inputs, training=True) if trains_apart(level) else judged
    if trains_apart(level) and not is_random(level) and cell.update_batch_stats is None:
        raise ConfigError(
            f"{name}, which has build_training() alone; it must have noise(), too, or give its cells statistics."
        )
    if is_random(level):
        width, longer = (noise(level, jax.random.key(0), steps, 3).shape[-1] for steps in (2, 5))
        if width != longer:
            raise ConfigError(
                f"{name}, whose noise has {width} numbers for each of 2 steps and {longer} of 5; both must be the same."
            )
        _width(name, cell, inputs + width)
        check_repeats(f"noise of {type(level).__name__}", lambda key: noise(level, key, 2, 3), jax.random.key(0))
    if trains_apart(level) and (found := shapes_of(cell.init(jax.random.key(0)))) != (other := shapes_of(begun)):
        raise ConfigError(
            f"{name}, whose build_training has the parameters {found} and build {other}; they must be the same."
        )
    _check_statistics(name, (cell, judged), begun, steps, inputs + width)


def _check_statistics(name: str, cells: tuple[Cell, Cell], begun: Any, steps: int, inputs: int) -> None:
    """Raises ConfigError where a level's cells, of training and of evaluation, do not go on with what they began."""
    kept, (cell, _) = statistics.of(begun), cells
    has = [kept is not None, *(one.update_batch_stats is not None for one in cells)]
    if any(has) and not all(has):
        raise ConfigError(
            f"{name}, which must have 'statistics' in what its init gives, a dict or a NamedTuple, and "
            "seqdyn.cell(…, statistics=…) in each of its cells, or neither."
        )
    if cell.update_batch_stats is None:
        return
    with known_at_run_time(name):
        carry = cell.initial_carry((3,))
        ran = Layer(cell, begun, carry, jnp.zeros((steps, 3, inputs)), None, jnp.zeros((steps, *carry.h.shape)))
        after = cell.update_batch_stats(ran)
    if (shapes_of(after), types_of(after)) != (shapes_of(kept), types_of(kept)):
        raise ConfigError(
            f"{name}, whose statistics go from {shapes_of(kept)} to {shapes_of(after)}, {types_of(after)}; they must "
            "stay what init gives."
        )


def _width(name: str, cell: Cell, inputs: int) -> int:
    """Of a cell of one's own."""
    with known_at_run_time(name):
        carry, params = cell.initial_carry((3,)), cell.init(jax.random.key(0))
    h = getattr(carry, "h", None)
    if not hasattr(carry, "_replace") or h is None or h.ndim != 2 or h.shape[0] != 3 or h.dtype not in _TRAINED:
        found = shapes_of(carry), types_of(carry)
        raise ConfigError(f"{name}, whose carry is {found} for 3 sequences; its h must be floats [*b, h].")
    if not h.size:
        raise ConfigError(f"{name}, whose h has the shape {h.shape} for 3 sequences; it must be at least 1 wide.")
    if other := other_leaf(params, lambda leaf: leaf.dtype in _TRAINED):
        raise ConfigError(
            f"{name}, whose init gives {other}; parameters must be 32-bit floats, as they are trained: a constant is "
            "made in build, a complex number of two floats."
        )
    with known_at_run_time(name):
        after = step(cell, params, carry, jnp.zeros((3, inputs)))
    if shapes_of(after) != shapes_of(carry):
        raise ConfigError(
            f"{name}, whose step goes from {shapes_of(carry)} to {shapes_of(after)}; it must be the same."
        )
    return h.shape[-1]
