"""Two numbers of a part that are the ends of a range."""

from typing import Any

import numpy as np
from jax.core import Tracer

from seqdyn.parts import listed
from seqdyn.types import ConfigError


def check_range(part: Any, low: str, high: str) -> None:
    """Raises ConfigError where a number of a part lies above another."""
    lows, highs = getattr(part, low), getattr(part, high)
    if isinstance(lows, Tracer) or isinstance(highs, Tracer):
        return
    lows, highs = np.broadcast_arrays(np.asarray(listed(lows)), np.asarray(listed(highs)))
    wrong = np.flatnonzero(lows > highs)
    if wrong.size:
        raise ConfigError(
            f"{type(part).__name__}.{low} is {lows[wrong[0]]:g}; it must be at most {high}, {highs[wrong[0]]:g}."
        )
