"""Terms of the objective: parts with a `weight`, a `value(seen) -> scalar`, and `reads`, what of a `Pass` they see.

    reads = "weights"      `seen.params` and `seen.batch`
    reads = "states"       the states of every layer, too, in `seen.layers`
    reads = "adjoints"     their adjoints, too, which the backward pass of the loss has made

A term's gradient is the true one, through the states and through the backward pass that made the adjoints. `detached =
True` in the class takes both for constants: the gradient is that through `seen.params` alone, and costs no pass of its
own. (`jax.lax.stop_gradient` of some of them does the same by halves.)

Under `clip = "adjoint"` the adjoints that a term sees are those that were clipped, as its network is trained by them;
the gradient is held against autodiff's without a clip.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, get_args

import jax.numpy as jnp

from seqdyn.building import check_part, is_real, kind_of, known_at_run_time
from seqdyn.data.batches import Batch
from seqdyn.fields import Fields, PenaltyName
from seqdyn.learn.context import A_NAME, Variable, is_name
from seqdyn.nets import stack
from seqdyn.nets.bptt import Tap
from seqdyn.norms import norm, power_of_two
from seqdyn.parts import is_part, lenient
from seqdyn.types import Array, Bool, ConfigError, Float, Tree

READS = ("weights", "states", "adjoints")


@dataclass(frozen=True)
class LayerPass:
    """A layer's way through a batch and back, its steps in the order in which it read them."""

    ran: stack.Layer
    """Its cell, parameters, inputs and outputs."""
    reading: Tap | None = None
    """What `unroll` read of the adjoint of the batch's mean loss; None where a term reads 'states'."""
    faint: float = -math.inf
    """Where log₂ ‖λ_t‖ is not above this, no adjoint is `reached`."""

    @property
    def states(self) -> Float[Array, "t b h"]:
        """h_1 … h_T; on padding what it was before."""
        return self.ran.hs

    @property
    def mask(self) -> Bool[Array, "t b"]:
        """False on padding."""
        return jnp.ones(self.ran.hs.shape[:-1], bool) if self.ran.mask is None else self.ran.mask

    @property
    def adjoint(self) -> Float[Array, "t b h"]:
        """λ_t = ∂L/∂h_t of each example's own loss, as the records have it; 0 on padding."""
        mantissa, exponent = self._read()
        factor = self._size * power_of_two(exponent, mantissa.dtype)
        return mantissa * jnp.broadcast_to(factor[..., None], mantissa.shape)

    @property
    def reached(self) -> Bool[Array, "t b"]:
        """Steps that are no padding and whose λ_t is not 0."""
        return self._logs()[0]

    @property
    def log2(self) -> Float[Array, "t b"]:
        """log₂ ‖λ_t‖, 0 where none is `reached`, beyond the range of floats, too; its gradient is never NaN."""
        some, logs = self._logs()
        return jnp.where(some, logs, 0)

    def _logs(self) -> tuple[Array, Array]:
        mantissa, exponent = self._read()
        size = norm(mantissa)
        some = self.mask & (size > 0)
        logs = jnp.log2(jnp.where(some, size, 1)) + exponent.astype(size.dtype) + jnp.log2(self._size)
        return some & (logs > self.faint), logs

    @property
    def _size(self) -> Float[Array, ""]:
        return jnp.asarray(self.ran.hs.shape[1], self.ran.hs.dtype)

    def _read(self) -> tuple[Array, Array]:
        if self.reading is None or self.reading.adjoint is None:
            raise ConfigError("it asks for adjoints; it must have reads = 'adjoints'.")
        mantissa = self.reading.adjoint.h
        exponent = self.reading.exponent
        return mantissa, jnp.zeros(mantissa.shape[:-1], jnp.float32) if exponent is None else exponent


@dataclass(frozen=True)
class Pass:
    """What a term sees of the network and of a batch's way through it.

    For example, Σ ‖h_t‖² over the examples and the steps that are no padding, of the highest layer (reads = 'states'):

        h, mask = seen.top[0].states, seen.top[0].mask      # [t, b, h], [t, b]
        jnp.sum(jnp.where(mask[..., None], h, 0) ** 2)
    """

    spec: Any
    """The run's: its words, and its numbers as scalars."""
    params: Tree
    """All that is trained: `params.layers[0].u`, of one's own cell what its `init` gave, or a network's own."""
    batch: Batch
    """`xs` [t, b, …], `ys`, and `mask` [t, b], None without padding."""
    ran: tuple[LayerPass, ...] | None = None
    """None where a term reads 'weights'."""

    @property
    def layers(self) -> tuple[LayerPass, ...]:
        """Bottom first; the two directions of a level follow each other."""
        if self.ran is None:
            raise ConfigError("it asks for layers; it must have reads = 'states' or 'adjoints'.")
        return self.ran

    @property
    def top(self) -> tuple[LayerPass, ...]:
        """The highest level: one layer, or two directions."""
        return self.layers[-2:] if self.spec.bidirectional else self.layers[-1:]


def own(spec: Fields) -> dict[str, Any]:
    """The users' terms of a spec, by where they stand: 'penalties[1]'."""
    return {f"penalties[{i}]": one for i, one in enumerate(spec.penalties) if is_part(one)}


def words(spec: Fields) -> Any:
    """Those that are no parts; what is no tuple as it is."""
    given = spec.penalties
    return tuple(one for one in given if not is_part(one)) if isinstance(given, tuple) else given


def called(term: Any) -> str:
    """`name` of a term, or its class's: it is recorded as penalty_<name>."""
    return getattr(term, "name", type(term).__name__)


def detached(term: Any) -> bool:
    """Does it take for constants what it reads?"""
    return term.reads == "weights" or getattr(term, "detached", False)


def variables(spec: Fields) -> dict[str, Variable]:
    """What is recorded of a spec's own terms, with its axes after `run`."""
    return {
        f"penalty_{called(term)}": Variable(("step",), f"{called(term)}, before its weight")
        for term in own(spec).values()
    }


def check_term(where: str, term: Any) -> None:
    """Raises ConfigError for what is no term."""
    check_part(where, term, "value")
    name = f"{where} is {type(term).__name__}"
    if type(term).__part_name__.startswith("seqdyn:"):
        raise ConfigError(
            f"{name}, which is the library's; say {called(term)!r}, whose weight is one of the spec's numbers."
        )
    field = type(term).__dataclass_fields__.get("weight")
    if field is None or "number" not in field.metadata or term.weight is None:
        raise ConfigError(f"{name}, which has no weight; it must have one, weight: sd.Number = sd.number(0.1).")
    if getattr(term, "reads", None) not in READS:
        got = repr(term.reads)[:60] if hasattr(term, "reads") else "missing"
        raise ConfigError(f"{name}, whose reads is {got}; it must be one of {', '.join(READS)}.")
    if not isinstance(getattr(term, "detached", False), bool):
        raise ConfigError(f"{name}, whose detached is {term.detached!r:.60}; it must be True or False.")
    said = called(term)
    if not is_name(said):
        raise ConfigError(f"{name}, whose name is {said!r:.60}; it must be {A_NAME}.")
    if said in get_args(PenaltyName):
        raise ConfigError(f"{name}, whose name {said!r} is that of a penalty of the library; it must be another.")


def valued(term: Any, seen: Pass) -> Float[Array, ""]:
    """A term's value before its weight. Raises ConfigError where that is no number."""
    name = f"penalties has {type(term).__name__}"
    if term.reads == "weights":
        seen = replace(seen, ran=None)
    elif term.reads == "states":
        seen = replace(seen, ran=tuple(replace(layer, reading=None) for layer in seen.layers))
    try:
        with lenient(), known_at_run_time(name):
            found = term.value(seen)
    except ConfigError as error:
        raise error if name in str(error) else ConfigError(f"{name}, in whose value {error}") from error
    if not is_real(found) or jnp.shape(found) != ():
        got = f"of the shape {jnp.shape(found)}" if is_real(found) else kind_of(found)
        raise ConfigError(f"{name}, whose value is {got}; it must be one number.")
    found = jnp.asarray(found)
    return found if jnp.issubdtype(found.dtype, jnp.floating) else found.astype(jnp.float32)
