"""Sequences of numbers as a network takes them: padded, cut into windows, and scaled by what the training split says
alone."""

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
    """Each feature minus the mean, divided by the standard deviation, of the valid steps of 'train'; padding becomes 0,
    and so does, in 'train', a feature that is constant there.
    """

    one_of("pad", pad, get_args(Pad))

    def mask(e: Examples) -> np.ndarray:
        t = np.arange(e.xs.shape[1])[None]
        n = e.lengths[:, None]
        return t >= e.xs.shape[1] - n if pad == "before" else t < n

    frames = splits["train"].xs[mask(splits["train"])].astype(np.float64)
    mean, sd = frames.mean(axis=0), frames.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)

    def fitted(e: Examples) -> Examples:
        xs = np.where(mask(e)[..., None], (e.xs.astype(np.float64) - mean) / sd, 0.0)
        return e._replace(xs=xs.astype(np.float32))

    return {name: fitted(e) for name, e in splits.items()}


def windows(examples: Examples, length: int, hop: int, pad: Pad = "before") -> tuple[Examples, Int32[np.ndarray, " m"]]:
    """Windows of `length` steps that begin every `hop` steps of each sequence, and of which sequence each is: they
    overlap where `hop` is below `length`, and each has its sequence's label (Cui, Chen & Chen 2016, §4.1).

    The last begins where the sequence's last step is its last; a sequence of fewer steps is one window, padded. Cut
    what is trained on, after the split: windows that overlap in two splits would be tested on what was learned.
    ConfigError for a length above that of `examples`, and for labels of every step.
    """
    one_of("pad", pad, get_args(Pad))
    length, hop = whole("length", length), whole("hop", hop)
    xs, lengths, ys = (np.asarray(leaf) for leaf in examples)
    if length > xs.shape[1]:
        raise ConfigError(f"length is {length}; it must be at most the steps of the sequences, {xs.shape[1]}.")
    if lengths.ndim != 1 or ys.ndim > 2:
        raise ConfigError(
            f"ys has the shape {ys.shape} and lengths {lengths.shape}; they must be [n] or [n, k], and [n]."
        )
    cut, of = [], []
    for i, n in enumerate(lengths):
        row = xs[i, len(xs[i]) - n :] if pad == "before" else xs[i, :n]
        starts = [*range(0, max(n - length, 0), hop), max(n - length, 0)]
        cut += [row[start : start + length] for start in starts]
        of += [i] * len(starts)
    out = np.zeros((len(cut), length, *xs.shape[2:]), xs.dtype)
    for new, window in zip(out, cut, strict=True):
        new[length - len(window) if pad == "before" else 0 :][: len(window)] = window
    rows = np.array(of, np.int32)
    return Examples(out, np.array([len(window) for window in cut], np.int32), ys[rows]), rows


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
