"""Cells without biases."""

from typing import Any

import jax.numpy as jnp

from seqdyn.nets.cells import Cell


def without_biases(cell: Cell) -> Cell:
    """`cell`, an rnn, LSTM or GRU of `cells`, whose biases are 0 and stay 0: they receive no gradient."""
    weigh, units = cell.weigh, cell.units
    assert units is not None

    def silent(params: Any) -> Any:
        return params._replace(**{n: jnp.zeros_like(getattr(params, n)) for n in ("b", "bn") if hasattr(params, n)})

    return cell._replace(
        init=lambda key: silent(cell.init(key)),
        drive=lambda params, x: cell.drive(silent(params), x),
        gate=lambda params, *given: cell.gate(silent(params), *given),
        weigh=None if weigh is None else lambda params, *given: silent(weigh(params, *given)),
        units=lambda params, *given: units(silent(params), *given),
    )
