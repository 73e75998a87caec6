"""What each number of `Hypers` may be."""

import math
from typing import Any, NamedTuple, get_args

import numpy as np

from seqdyn.learn import choices
from seqdyn.types import ConfigError

_POSITIVE = ("lr", "clip", "decay_steps", "window", "patience")
_FRACTION = ("momentum", "decay_rate")
_NOT_NEGATIVE = (
    *("gain", "input_gain", "readout_gain", "norm_gain", "weight_decay", "warmup", "thaw", "min_improvement"),
    "strength",
    *get_args(choices.PenaltyName),
)


class Allowed(NamedTuple):
    """What a number of `Hypers` may be, as `parts.Range` says it of a part's."""

    name: str

    @property
    def whole(self) -> bool:
        """Is it int32 when it runs?"""
        return self.name in ("seed", "window")

    def refuses(self, value: Any) -> str | None:
        """What `value` must be, in words; None where it is that."""
        return _refused(self.name, value)


def check_hyper(name: str, value: Any) -> None:
    """Raises ConfigError for a value that `Hypers.<name>` cannot have."""
    right = _refused(name, value)
    if right:
        raise ConfigError(f"{name} is {value!r}; it must be {right}.")


def _refused(name: str, value: Any) -> str | None:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "a number"
    if isinstance(value, int) and abs(value) >= 2**127:
        return "below 2¹²⁷ in size"
    if math.isnan(value) or (math.isinf(value) and name not in ("clip", "thaw", "patience")):
        return "finite"
    least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    if math.isfinite(value) and value and not least <= abs(value) <= most:
        return f"0 or between {least:.2g} and {most:.2g} in size, as 32-bit floats are"
    if name in ("seed", "window") and (value != int(value) or not 0 <= value < 2**31):
        return f"a whole number of at least {0 if name == 'seed' else 1}, below 2³¹"
    if name in _POSITIVE and value <= 0:
        return "greater than 0"
    if name in _FRACTION and not 0 <= value <= 1:
        return "between 0 and 1"
    if name == "longest" and value <= 2:
        return "more than 2 steps"
    if name == "dropout" and not 0 <= value < 1:
        return "at least 0 and below 1"
    return "at least 0" if name in _NOT_NEGATIVE and value < 0 else None
