"""The layers of PyTorch's `nn.RNN`, `nn.LSTM` and `nn.GRU` by `bptt.unroll`, given a call's arrays and ∂L/∂outputs."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import compiled
from seqdyn.nets import cells
from seqdyn.nets.bptt import Backprop, Tap, taps, unroll
from seqdyn.nets.cells import Carry, Cell, GRUWeights, Hidden, Memory, Weights
from seqdyn.nets.conventions import from_pytorch
from seqdyn.types import Array, Float


class Layers(NamedTuple):
    """What decides the program."""

    kind: str
    """'rnn', 'lstm' or 'gru'"""
    inputs: int
    hidden: int
    levels: int
    directions: int
    activation: str
    """φ of an rnn."""

    @property
    def suffixes(self) -> list[str]:
        """Ends of the names of each layer's weights, in the order of h_n: 'l0', 'l0_reverse', 'l1', …"""
        ways = ("", "_reverse")[: self.directions]
        return [f"l{level}{way}" for level in range(self.levels) for way in ways]

    def cell(self, level: int) -> Cell:
        """Of both directions of a level."""
        sizes = self.hidden * self.directions if level else self.inputs, self.hidden
        if self.kind == "rnn":
            return cells.rnn(*sizes, self.activation)
        return {"lstm": cells.lstm, "gru": cells.gru}[self.kind](*sizes)


class Call(NamedTuple):
    """One call of the module, of NumPy's arrays or JAX's. Sequences are padded after their ends; l counts the
    `Layers.suffixes`."""

    weights: dict[str, Any]
    """By PyTorch's names; without biases, where it has none."""
    xs: Any
    """[t, b, d]"""
    mask: Any
    """[t, b]: False on padding; None: there is none."""
    first: tuple[Any, ...]
    """(h_0,) or (h_0, c_0), [l, b, h]"""
    masks: Any
    """[m, t, b, k]: what dropout multiplied the outputs of each level but the top one by; None: nothing."""
    outputs: Any
    """[t, b, k]"""
    d_outputs: Any
    """∂L/∂outputs [t, b, k]"""
    d_last: tuple[Any, ...]
    """∂L/∂h_n, or that and ∂L/∂c_n, [l, b, h]"""


class Read(NamedTuple):
    """What our two passes say of a call; readings in the order of its steps, whichever way a layer reads them."""

    whole: tuple[Float[Array, "l t b"], ...]
    """Mantissas of ‖∂L/∂h_t‖, and of ‖∂L/∂c_t‖ with h_t held fixed; 0 on padding."""
    from_next: tuple[Float[Array, "l t b"], ...]
    """Of what came from the step that is done next."""
    exponent: Float[Array, "l t b"]
    apart: Float[Array, ""]
    """The largest difference between the outputs and ours, over the largest output."""


def _params(layers: Layers, weights: dict[str, Array], end: str) -> Weights | GRUWeights:
    w, u = weights[f"weight_ih_{end}"], weights[f"weight_hh_{end}"]
    none = jnp.zeros(u.shape[:1], u.dtype)
    return from_pytorch(layers.kind, w, u, *(weights.get(f"bias_{of}_{end}", none) for of in ("ih", "hh")))


def _forward(layers: Layers, call: Call, watches: list[Tap]) -> tuple[Array, Any]:
    """(outputs of the top, (h_n,) or (h_n, c_n))"""
    xs, last = call.xs, []
    for level in range(layers.levels):
        if level and call.masks is not None:
            xs = xs * call.masks[level - 1]
        cell, outputs = layers.cell(level), []
        for way in range(layers.directions):
            i = level * layers.directions + way
            params = _params(layers, call.weights, layers.suffixes[i])
            carry = _carry(layers, [part[i] for part in call.first])
            out, end = unroll(cell, params, carry, xs, Backprop(mask=call.mask), watches[i], reverse=way == 1)
            outputs.append(out)
            last.append(_parts(end))
        xs = jnp.concatenate(outputs, axis=-1)
    return xs, tuple(jnp.stack(part) for part in zip(*last, strict=True))


def _carry(layers: Layers, parts: list[Array]) -> Carry:
    return Memory(h=parts[0], c=parts[1]) if layers.kind == "lstm" else Hidden(parts[0])


def _parts(carry: Carry) -> tuple[Array, ...]:
    return (carry.h, carry.c) if isinstance(carry, Memory) else (carry.h,)


def _read(layers: Layers, call: Call) -> Read:
    steps, batch = call.xs.shape[:2]
    kind = call.xs.dtype
    empty = [taps(layers.cell(0), steps, (batch,), ranged=True)] * len(layers.suffixes)
    empty = [jax.tree.map(lambda leaf: leaf.astype(kind), watch)._replace(exponent=watch.exponent) for watch in empty]

    (outputs, _), pull = jax.vjp(partial(_forward, layers, call), empty)
    (readings,) = pull((call.d_outputs, call.d_last))

    def over_layers(read: Any) -> Any:
        found = [read(one) for one in readings]
        turned = [
            jax.tree.map(lambda leaf: jnp.flip(leaf, axis=0), one) if i % layers.directions else one
            for i, one in enumerate(found)
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *turned)

    sizes = [jnp.abs(outputs - call.outputs), jnp.abs(outputs)]
    if call.mask is not None:
        sizes = [jnp.where(call.mask[..., None], size, 0) for size in sizes]
    most = [jnp.max(jnp.max(size, axis=0)) for size in sizes]  # XLA's CPU vectorises over all axes but the last
    apart = most[0] / most[1]
    return Read(
        over_layers(lambda one: _parts(one.adjoint_norm)),
        over_layers(lambda one: _parts(one.from_next_norm)),
        over_layers(lambda one: one.exponent),
        apart,
    )


def _weight_gradients(layers: Layers, call: Call) -> dict[str, Array]:
    unwatched = [Tap()] * len(layers.suffixes)
    _, pull = jax.vjp(lambda weights: _forward(layers, call._replace(weights=weights), unwatched), call.weights)
    return pull((call.d_outputs, call.d_last))[0]


read = compiled(_read, static_argnums=0)
"""(layers, call) -> `Read`"""

weight_gradients = compiled(_weight_gradients, static_argnums=0)
"""(layers, call) -> ∂L/∂weights, by name. Apart from `read`: of one program for both, each look would write
∂L/∂z of every step, which the first look alone reads."""
