"""The types in which a network is trained and computes: `Spec.dtype`.

    dtype       parameters, optimiser, loss    forward and backward pass    a unit in the last place    smallest λ
    float32     float32                        float32                      2^−23                       2^−126
    bfloat16    float32                        bfloat16                     2^−7                        2^−126
    float64     float64                        float64                      2^−52                       2^−1022

The smallest λ is that without an exponent: what is recorded as `adjoint_log_norm` reaches 2^±2000 and beyond in each
of them. In bfloat16 the parameters that an update sees are those of float32, rounded at every use (Micikevicius et al.
2018, 'Mixed precision training'; no loss is scaled, as its range is that of float32). The readout's sum, the softmax
and the loss are float32 there. A gradient is held against autodiff's in float32, and the probes look in float32: what
they measure is the network, not its rounding. Records are stored in float32.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp

from seqdyn.fields import Dtype
from seqdyn.nets.cells import Carry, Cell
from seqdyn.types import ConfigError, Tree, one_of


def trained(dtype: str) -> Any:
    """The type of parameters, loss and numbers."""
    return jnp.float64 if dtype == "float64" else jnp.float32


def computed(dtype: str, tree: Tree) -> Tree:
    """`tree` with its floats in the type in which the network computes; for float32 as they are."""
    return tree if dtype == "float32" else _cast(dtype, tree)


def widened(dtype: str, tree: Tree) -> Tree:
    """`tree` with its floats in the type in which the network is trained; for float32 as they are."""
    return tree if dtype == "float32" else _cast(trained(dtype), tree)


def _cast(to: Any, tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf.astype(to) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def computing(dtype: str, cell: Cell) -> Cell:
    """`cell` with parameters to be trained in `dtype` and a state that it computes in it."""
    if dtype == "float32":
        return cell

    def nonlinearity(params: Any, carry: Carry, zx: Any, zh: Any) -> tuple[Carry, Any]:
        # The numbers of one's own cell are float32, and what they meet becomes it, too.
        new, partials = cell.nonlinearity(params, carry, zx, zh)
        return _cast(carry.h.dtype, new), partials

    return cell._replace(
        init=lambda key: _cast(trained(dtype), cell.init(key)),
        initial_carry=lambda batch: _cast(dtype, cell.initial_carry(batch)),
        nonlinearity=nonlinearity,
    )


def check(specs: Sequence[Any]) -> None:
    """Raises ConfigError for a type that does not fit the rest of a spec, or another spec's of its experiment."""
    for spec in specs:
        one_of("dtype", spec.dtype, get_args(Dtype))
    kinds = [spec.dtype for spec in specs]
    if len({*kinds}) > 1 and "float64" in kinds:
        raise ConfigError(f"dtype is {kinds} in the specs; float64 is of all or of none, as JAX computes in it or not.")


def exact(spec: Any) -> Any:
    """A spec whose network computes in the type in which it is trained."""
    return dataclasses.replace(spec, dtype="float32") if spec.dtype == "bfloat16" else spec
