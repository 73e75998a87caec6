"""What has been read of a watched scan."""

import math
from typing import NamedTuple

import jax.numpy as jnp

from seqdyn.norms import mean_log2, power_of_two, rms_ranged
from seqdyn.types import Array, Float, Tree


class Seen(NamedTuple):
    """‖λ_t‖ of every step and example, with λ_t = ∂L/∂carry_t of each example's own loss: mantissa · 2^exponent.

    [time, b] in the order of xs, whichever way the scan went; a scan within watched scans has their times before. b
    counts the examples (those of a `jax.vmap` in the loss included), 1 where the carry has no batch axis. `of` leaves
    of the carry count together.
    """

    mantissa: Float[Array, "*t b"]
    exponent: Float[Array, "*t b"]
    mantissa_from_next: Float[Array, "*t b"]
    """Mantissas of ‖λ_t‖ without what enters at t: see `from_next`."""
    adjoint: Tree = None
    """∂L/∂carry_t itself, [*t, ...] for each leaf: of the loss as it was given, in the range of its dtype."""
    count: Float[Array, "*t"] | None = None
    """Of sequences of unequal lengths, how many have a step t; the others' λ_t is 0. None: all b."""

    @property
    def from_next(self) -> "Seen":
        """Of what came from the next step alone, without the local error ∂L/∂y_t; 0 at the step that is last done."""
        return self._replace(mantissa=self.mantissa_from_next, adjoint=None)

    @property
    def each(self) -> Float[Array, "*t b"]:
        """‖λ_t‖ of each example, 0 or ∞ beyond the range of its dtype."""
        some = self.mantissa != 0
        return self.mantissa * power_of_two(jnp.where(some, self.exponent, 0), self.mantissa.dtype)

    @property
    def each_log2(self) -> Float[Array, "*t b"]:
        """log₂ ‖λ_t‖ of each example, −∞ where it is 0."""
        mantissa, exponent = self._split()
        return exponent + jnp.log2(mantissa)

    @property
    def rms(self) -> Float[Array, "*t"]:
        """√(mean over examples of ‖λ_t‖²)."""
        mantissa, exponent = self._flat()
        return rms_ranged(mantissa, exponent, self._count().reshape(-1)).reshape(self.mantissa.shape[:-1])

    @property
    def log2(self) -> Float[Array, "*t"]:
        """Mean of log₂ ‖λ_t‖ over the examples where it is not 0, of which there are `nonzero`; NaN over none."""
        mean, _ = mean_log2(*self._flat())
        return (mean.high + mean.low).reshape(self.mantissa.shape[:-1])

    @property
    def nonzero(self) -> Float[Array, "*t"]:
        """The fraction of examples whose λ_t is not 0."""
        return jnp.sum(self.mantissa != 0, axis=-1, dtype=self.mantissa.dtype) / self._count()

    def _count(self) -> Float[Array, "*t"]:
        if self.count is not None:
            return self.count
        return jnp.full(self.mantissa.shape[:-1], self.mantissa.shape[-1], self.mantissa.dtype)

    def _split(self) -> tuple[Array, Array]:
        """(mantissas between ½ and 1, of which log₂ is exact at ½, exponents)."""
        mantissa, more = jnp.frexp(self.mantissa)
        return mantissa, self.exponent.astype(mantissa.dtype) + more.astype(mantissa.dtype)

    def _flat(self) -> tuple[Array, Array]:
        mantissa, exponent = self._split()
        rows = math.prod(mantissa.shape[:-1]), mantissa.shape[-1]
        return mantissa.reshape(rows), exponent.reshape(rows)
