"""`Numbers`: those of the words of a spec, what each may be, and what makes a spec heed it."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn import grids, parts
from seqdyn.types import ConfigError


class Allowed(NamedTuple):
    """What one of `Numbers` may be, as `parts.Range` says it of a part's."""

    right: Callable[[Any], str | None]
    """What a finite value must be, in words; None where it is that."""
    whole: bool = False
    """Is it int32 when it runs?"""
    infinite: bool = False

    def refuses(self, value: Any) -> str | None:
        """What `value` must be, in words; None where it is that."""
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "a number"
        if isinstance(value, int) and abs(value) >= 2**127:
            return "below 2¹²⁷ in size"
        if math.isnan(value) or (math.isinf(value) and not self.infinite):
            return "finite"
        least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
        if math.isfinite(value) and value and not least <= abs(value) <= most:
            return f"0 or between {least:.2g} and {most:.2g} in size, as 32-bit floats are"
        return self.right(value)


class Switch(NamedTuple):
    """What makes a spec heed a number."""

    missing: str
    """In words."""
    on: Callable[[Any], Any]


def _number(
    default: Any, right: Any = lambda value: None, *, on: Switch | None = None, replaced_by: str = "", **more: bool
) -> Any:
    """A part in one of these fields of a spec takes the place of who heeds it."""
    return field(
        default=default, metadata={"number": Allowed(right, **more), "switch": on, "replaced_by": replaced_by.split()}
    )


def _whole(default: int, least: int, **more: Any) -> Any:
    def right(value: Any) -> str | None:
        if value != int(value) or not 0 <= value < 2**31:
            return f"a whole number of at least {least}, below 2³¹"
        return None if value >= least else "greater than 0"

    return _number(default, right, whole=True, **more)


def _positive(default: float, **more: Any) -> Any:
    return _number(default, lambda value: None if value > 0 else "greater than 0", **more)


def _not_negative(default: float, **more: Any) -> Any:
    return _number(default, lambda value: None if value >= 0 else "at least 0", **more)


def _fraction(default: float, **more: Any) -> Any:
    return _number(default, lambda value: None if 0 <= value <= 1 else "between 0 and 1", **more)


def _weight(name: str) -> Any:
    return _not_negative(0.0, on=Switch(f"'{name}' among its penalties", lambda spec: name in spec.penalties))


_DROPS = Switch("dropout on", lambda spec: spec.dropout != "none")
_STOPS = Switch("stop on", lambda spec: spec.stop != "none")
_MOMENTS = Switch("the optimizer 'momentum' or 'rmsprop'", lambda spec: spec.optimizer in ("momentum", "rmsprop"))
_LSTM = Switch("the cell 'lstm' without chrono", lambda spec: spec.cell == "lstm" and not spec.chrono)


@parts.registered
@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers of what words say: leaves of a pytree, scalars for one run or [r] for a grid. They never recompile."""

    seed: Any = _whole(0, least=0)
    """Of parameters and data."""
    lr: Any = _positive(1e-3, replaced_by="optimizer")
    """Peak learning rate."""
    gain: Any = _not_negative(1.0, replaced_by="layers network")
    """Factor of the recurrent initialisation."""
    input_gain: Any = _not_negative(1.0, replaced_by="layers network")
    """Factor of the initialisation of the input weights."""
    readout_gain: Any = _not_negative(1.0, replaced_by="network")
    """Factor of the initialisation of the readout."""
    norm_gain: Any = _not_negative(
        1.0, replaced_by="layers network", on=Switch("normalise on", lambda spec: spec.normalise != "none")
    )
    """Factor of a normalisation's initial γ (0.1 of 'batch', else 1)."""
    clip: Any = _positive(math.inf, replaced_by="clip", infinite=True)
    """Threshold of `Spec.clip`; inf clips nothing. An adjoint's bound is per example, whatever the batch size."""
    forget_bias: Any = _number(1.0, replaced_by="layers network", on=_LSTM)
    """Initial bias of an LSTM's forget gate."""
    longest: Any = _number(
        100.0,
        lambda value: None if value > 2 else "more than 2 steps",
        replaced_by="layers network",
        on=Switch("chrono on", lambda spec: spec.chrono),
    )
    """T_max of a chrono initialisation, in steps."""
    momentum: Any = _fraction(0.9, replaced_by="optimizer", on=_MOMENTS)
    """Of 'momentum'; the decay of the second moment of 'rmsprop'."""
    weight_decay: Any = _not_negative(
        0.0, replaced_by="optimizer", on=Switch("the optimizer 'adamw'", lambda spec: spec.optimizer == "adamw")
    )
    """Decoupled decay of 'adamw': Δw also has −lr · this · w, for the matrices of `Spec.penalised` alone."""
    warmup: Any = _not_negative(0.0, replaced_by="optimizer schedule")
    """Updates over which the learning rate rises linearly from lr / warmup to lr."""
    decay_steps: Any = _positive(
        1000.0,
        replaced_by="optimizer schedule",
        on=Switch("a schedule but 'constant'", lambda spec: spec.schedule != "constant"),
    )
    """Updates after warm-up in which 'cosine' falls to 0, 'exponential' by `decay_rate` and 'inverse' to half."""
    decay_rate: Any = _fraction(
        0.1,
        replaced_by="optimizer schedule",
        on=Switch("the schedule 'exponential'", lambda spec: spec.schedule == "exponential"),
    )
    window: Any = _whole(10, least=1, on=Switch("truncate on", lambda spec: spec.truncate))
    """Steps of truncated backpropagation."""
    dropout: Any = _number(0.0, lambda value: None if 0 <= value < 1 else "at least 0 and below 1", on=_DROPS)
    """Rate of `Spec.dropout`: this share is 0 and the rest divided by 1 − rate; under 'zoneout' this share of the units
    keeps its old value. Off in evaluation, where zoneout takes the expectation."""
    l1: Any = _weight("l1")
    """Weight λ of the penalty of this name, as are the next four."""
    l2: Any = _weight("l2")
    activity: Any = _weight("activity")
    orthogonality: Any = _weight("orthogonality")
    omega: Any = _weight("omega")
    thaw: Any = _not_negative(0.0, infinite=True, on=Switch("pretrained on", lambda spec: spec.pretrained))
    """The update at which a pretrained embedding, frozen before, is unfrozen: 0 trains it from the start, inf never."""
    patience: Any = _positive(math.inf, infinite=True, on=_STOPS)
    """Looks in a row without improvement after which `Spec.stop` ends a run; inf ends none, and keeps the best."""
    min_improvement: Any = _not_negative(0.0, on=_STOPS)
    """By how much more than this a look must better the best one before it to count."""
    l1_proximal: Any = _weight("l1_proximal")
    """Weight λ of the penalty of this name, as is the next."""
    l0: Any = _weight("l0")
    strength: Any = _not_negative(0.0, on=Switch("augment on", lambda spec: spec.augment))
    """Of `Spec.augment`: 0 changes nothing, 1 as much as is usual, each says how much; the chance of a bank's
    variant."""

    def __eq__(self, other: object) -> bool:
        """The same numbers, of a grid, too."""
        if type(other) is not type(self):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in FIELDS)

    def __hash__(self) -> int:
        return hash(tuple((np.asarray(getattr(self, f.name), float) + 0.0).tobytes() for f in FIELDS))

    def __len__(self) -> int:
        return len(np.atleast_1d(np.asarray(self.seed)))

    def at(self, index: Any) -> "Numbers":
        """One run (or a slice of runs) of a grid."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def arrays(self, real: Any = jnp.float32) -> "Numbers":
        """With JAX leaves: seed and window int32, the rest `real`."""
        return grids.arrays(self, real)


FIELDS = dataclasses.fields(Numbers)


def replaced(holds_part: Callable[[str], bool], normalise: str) -> dict[str, str]:
    """Number that nobody heeds -> the field of a spec (the last) that `holds_part` in the place of who would; a word
    that normalises heeds its gain, whatever the cells are."""
    found = {f.name: name for f in FIELDS for name in f.metadata["replaced_by"] if holds_part(name)}
    return {name: field for name, field in found.items() if name != "norm_gain" or normalise == "none"}


def check_number(name: str, value: Any) -> None:
    """Raises ConfigError for a value that `Numbers.<name>`, or a path that ends with it, cannot have."""
    right = Numbers.__dataclass_fields__[name.rpartition(".")[2]].metadata["number"].refuses(value)
    if right:
        said = value.item() if isinstance(value, np.generic) else value
        raise ConfigError(f"{name} is {said!r}; it must be {right}.")
