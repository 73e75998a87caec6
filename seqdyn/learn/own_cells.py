"""The cell of each level of a spec, built and checked: parts of `Spec.layers`, or those that words are the names of."""

import inspect
from typing import Any, get_args

import jax
import jax.numpy as jnp

from seqdyn.building import built, known_at_run_time, shapes_of, takes, types_of
from seqdyn.fields import CellName, Fields
from seqdyn.nets.cells import Cell, step
from seqdyn.nets.inits import INITS
from seqdyn.nets.levels import GRU, LSTM, RNN, Dense, DensePerPosition, Level
from seqdyn.parts import Part, lenient
from seqdyn.types import ConfigError

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
    return isinstance(level, Level) and type(level).__module__.startswith("seqdyn.")


def own(spec: Fields) -> str | None:
    """The class of the first of a spec's levels that is none of the library's."""
    return next((type(level).__name__ for level in spec.layers if not known(level)), None)


def said(spec: Fields, kind: Any) -> str | None:
    """The first of a spec's levels that is of the kind, in words; None where there is none."""
    found = next((type(level).__name__ for level in levels(spec) if isinstance(level, kind)), None)
    return found and (f"layers has {found}" if spec.layers else f"cell is '{spec.cell}'")


def made_cell(where: str, level: Part, inputs: int, real: Any = jnp.float32) -> Cell:
    """The cell of one level. `real`, the type of its parameters, is for the library's, and for a `build` whose second
    argument is called `dtype`."""
    names = list(inspect.signature(level.build).parameters) if takes(level.build, inputs, real) else []
    given = (inputs, real) if names[1:2] == ["dtype"] else (inputs,)
    cell = built(where, level, Cell, "a seqdyn.Cell, as seqdyn.cell(…) does", *given)
    if known(level):
        return cell
    functions: dict[str, Any] = {name: lenient()(f) for name, f in cell._asdict().items() if callable(f)}
    return cell._replace(**functions)


def check_cells(layers: tuple[Any, ...], inputs: int, ways: int) -> tuple[int, ...]:
    """The widths of the cells that `layers` build, each on the one below. Raises ConfigError where one does not fit."""
    widths = []
    for i, layer in enumerate(layers):
        cell = made_cell(f"layers[{i}]", layer, inputs)
        widths.append(layer.hidden if known(layer) else _width(f"layers[{i}] is {type(layer).__name__}", cell, inputs))
        cell.init(jax.random.key(0))
        inputs = ways * widths[-1]
    return tuple(widths)


def _width(name: str, cell: Cell, inputs: int) -> int:
    """Of a cell of one's own."""
    with known_at_run_time(name):
        carry, params = cell.initial_carry((3,)), cell.init(jax.random.key(0))
    h = getattr(carry, "h", None)
    if not hasattr(carry, "_replace") or h is None or h.ndim != 2 or h.shape[0] != 3 or h.dtype not in _TRAINED:
        found = shapes_of(carry), types_of(carry)
        raise ConfigError(f"{name}, whose carry is {found} for 3 sequences; its h must be floats [*b, h].")
    if not all(leaf.dtype in _TRAINED for leaf in jax.tree.leaves(params)):
        raise ConfigError(
            f"{name}, whose init gives {types_of(params)}; parameters must be 32-bit floats, as they are trained."
        )
    with known_at_run_time(name):
        after = step(cell, params, carry, jnp.zeros((3, inputs)))
    if shapes_of(after) != shapes_of(carry):
        raise ConfigError(
            f"{name}, whose step goes from {shapes_of(carry)} to {shapes_of(after)}; it must be the same."
        )
    return h.shape[-1]
