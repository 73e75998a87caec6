"""The cells of `Spec.layers`, built and checked."""

from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.building import built, known_at_run_time, shapes_of, types_of
from seqdyn.nets.cells import Cell, step
from seqdyn.parts import lenient
from seqdyn.types import ConfigError

_TRAINED = (jnp.float32, jnp.float64)


def made_cell(where: str, layer: Any, inputs: int) -> Cell:
    """The cell of one layer."""
    cell = built(where, layer, Cell, "a seqdyn.Cell, as seqdyn.cell(…) does", inputs)
    functions: dict[str, Any] = {name: lenient()(f) for name, f in cell._asdict().items() if callable(f)}
    return cell._replace(**functions)


def check_cells(layers: tuple[Any, ...], inputs: int, ways: int) -> tuple[int, ...]:
    """The widths of the cells that `layers` build, each on the one below. Raises ConfigError where one does not fit."""
    widths = []
    for i, layer in enumerate(layers):
        name = f"layers[{i}] is {type(layer).__name__}"
        cell = made_cell(f"layers[{i}]", layer, inputs)
        with known_at_run_time(name):
            carry, params = cell.rest((3,)), cell.init(jax.random.key(0))
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
        widths.append(h.shape[-1])
        inputs = ways * widths[-1]
    return tuple(widths)
