"""Sequences of numbers as a network takes them: padded, and scaled by what the training split says alone."""

from typing import get_args

import numpy as np
from jaxtyping import Float32, Int32

from seqdyn.data.text import Examples
from seqdyn.types import ConfigError, Pad, one_of, whole


def scaled(
    splits: dict[str, Float32[np.ndarray, "..."]], low: float = -1.0, high: float = 1.0
) -> dict[str, Float32[np.ndarray, "..."]]:
    """Each feature (last axis) to a range: low + (high − low) (x − min) / (max − min), min and max those of the split
    'train' alone, so that held-out rows may leave the range and cannot move it. A feature that is constant in 'train'
    becomes the middle. ConfigError for an empty range."""
    if not low < high:
        raise ConfigError(f"low is {low!r} and high is {high!r}, but low must be below high.")
    train = splits["train"].reshape(-1, splits["train"].shape[-1]).astype(np.float64)
    least, span = train.min(axis=0), np.ptp(train, axis=0)
    varies = span > 0

    def to_range(xs: np.ndarray) -> np.ndarray:
        share = np.where(varies, (xs.astype(np.float64) - least) / np.where(varies, span, 1.0), 0.5)
        return (low + (high - low) * share).astype(np.float32)

    return {name: to_range(xs) for name, xs in splits.items()}


def standardised(splits: dict[str, Examples], pad: Pad = "before") -> dict[str, Examples]:
    """Each feature minus the mean, divided by the standard deviation, of the live steps of 'train'; padding becomes 0,
    and so does, in 'train', a feature that is constant there.
    """

    one_of("pad", pad, get_args(Pad))

    def live(e: Examples) -> np.ndarray:
        t = np.arange(e.xs.shape[1])[None]
        n = e.lengths[:, None]
        return t >= e.xs.shape[1] - n if pad == "before" else t < n

    frames = splits["train"].xs[live(splits["train"])].astype(np.float64)
    mean, sd = frames.mean(axis=0), frames.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)

    def fitted(e: Examples) -> Examples:
        xs = np.where(live(e)[..., None], (e.xs.astype(np.float64) - mean) / sd, 0.0)
        return e._replace(xs=xs.astype(np.float32))

    return {name: fitted(e) for name, e in splits.items()}


def padded(
    sequences: list[Float32[np.ndarray, "_ d"]], steps: int, pad: Pad = "before"
) -> tuple[Float32[np.ndarray, "n s d"], Int32[np.ndarray, " n"]]:
    """`(xs, lengths)` of sequences of numbers: the first `steps` steps of each, zeros before or after them."""
    one_of("pad", pad, get_args(Pad))
    steps = whole("steps", steps)
    lengths = np.array([min(len(one), steps) for one in sequences], np.int32)
    xs = np.zeros((len(sequences), steps, sequences[0].shape[-1]), np.float32)
    for row, one, n in zip(xs, sequences, lengths, strict=True):
        start = steps - n if pad == "before" else 0
        row[start : start + n] = one[:n]
    return xs, lengths
