"""Cells without biases."""

from typing import Any

import jax.numpy as jnp

from seqdyn.nets.cells import Cell


def without_biases(cell: Cell) -> Cell:
    """`cell`, an rnn, LSTM or GRU of `cells`, whose biases are 0 and stay 0: they receive no gradient."""
    weight_gradients, units = cell.weight_gradients, cell.units
    assert units is not None

    def silent(params: Any) -> Any:
        return params._replace(**{n: jnp.zeros_like(getattr(params, n)) for n in ("b", "bn") if hasattr(params, n)})

    return cell._replace(
        init=lambda key: silent(cell.init(key)),
        input_projection=lambda params, x: cell.input_projection(silent(params), x),
        nonlinearity=lambda params, *given: cell.nonlinearity(silent(params), *given),
        weight_gradients=None
        if weight_gradients is None
        else lambda params, *given: silent(weight_gradients(params, *given)),
        units=lambda params, *given: units(silent(params), *given),
    )
