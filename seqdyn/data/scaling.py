"""Sequences of numbers as a network takes them: padded, cut into windows, and scaled by what the training split says
alone. Arrays may be lists, Series or tensors; ConfigError for what is no array of finite numbers."""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from jaxtyping import Float32, Int32

from seqdyn.data.arrays import array, numbers, step_counts
from seqdyn.data.text import Examples
from seqdyn.types import ConfigError, Pad, one_of, whole


def scaled(splits: Any, low: float = -1.0, high: float = 1.0) -> dict[str, Float32[np.ndarray, "..."]]:
    """Each feature (last axis) to a range: low + (high − low) (x − min) / (max − min), min and max those of the split
    'train' alone, so that held-out rows may leave the range and cannot move it. A feature that is constant in 'train'
    becomes the middle. ConfigError for an empty range."""
    ends = [one for one in (low, high) if isinstance(one, int | float | np.number) and np.isfinite(one)]
    if len(ends) < 2 or not low < high:
        raise ConfigError(f"low is {low!r} and high is {high!r}, but low must be below high.")
    splits = {name: _rows(name, xs) for name, xs in _of_splits(splits).items()}
    train = splits["train"].reshape(-1, splits["train"].shape[-1]).astype(np.float64)
    least, span = train.min(axis=0), np.ptp(train, axis=0)
    varies = span > 0

    def to_range(xs: np.ndarray) -> np.ndarray:
        share = np.where(varies, (xs.astype(np.float64) - least) / np.where(varies, span, 1.0), 0.5)
        return (low + (high - low) * share).astype(np.float32)

    return {name: to_range(xs) for name, xs in splits.items()}


def standardised(splits: Any, pad: Pad = "before") -> dict[str, Examples]:
    """Each feature minus the mean, divided by the standard deviation, of the valid steps of 'train'; padding becomes 0,
    and so does, in 'train', a feature that is constant there.
    """

    one_of("pad", pad, get_args(Pad))
    splits = {name: _examples(name, of) for name, of in _of_splits(splits).items()}

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


def windows(examples: Any, length: int, hop: int, pad: Pad = "before") -> tuple[Examples, Int32[np.ndarray, " m"]]:
    """Windows of `length` steps that begin every `hop` steps of each sequence, and of which sequence each is: they
    overlap where `hop` is below `length`, and each has its sequence's label (Cui, Chen & Chen 2016, §4.1).

    The last begins where the sequence's last step is its last; a sequence of fewer steps is one window, padded. Cut
    what is trained on, after the split: windows that overlap in two splits would be tested on what was learned.
    ConfigError for a length above that of `examples`, and for labels of every step.
    """
    one_of("pad", pad, get_args(Pad))
    length, hop = whole("length", length), whole("hop", hop)
    xs, lengths, ys = (array(f"{n} of examples", leaf, "an array") for n, leaf in zip(_NAMES, examples, strict=True))
    if xs.ndim < 2 or length > xs.shape[1]:
        steps = f"the steps of the sequences, {xs.shape[1]}" if xs.ndim > 1 else f"those of xs, of the shape {xs.shape}"
        raise ConfigError(f"length is {length}; it must be at most {steps}.")
    if lengths.shape != xs.shape[:1] or ys.shape[:1] != xs.shape[:1] or ys.ndim > 2:
        raise ConfigError(
            f"ys has the shape {ys.shape} and lengths {lengths.shape}; they must be [n] or [n, k], and [n]."
        )
    lengths = step_counts("of examples", lengths, xs.shape[1])
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
    sequences: Any, steps: int, pad: Pad = "before"
) -> tuple[Float32[np.ndarray, "n s d"], Int32[np.ndarray, " n"]]:
    """`(xs, lengths)` of sequences [_, d] of numbers: the first `steps` steps of each, zeros before or after them.

    ConfigError where there is none, and for one of another d.
    """
    one_of("pad", pad, get_args(Pad))
    steps = whole("steps", steps)
    if isinstance(sequences, str | bytes) or not hasattr(sequences, "__len__") or not len(sequences):
        raise ConfigError(f"sequences is {sequences!r:.60}; it must be a list of arrays [_, d], one at least.")
    found = [numbers(f"sequence {i}", one) for i, one in enumerate(sequences)]
    for i, one in enumerate(found):
        if one.ndim != 2 or one.shape[1] != found[0].shape[-1]:
            right = f"[_, {found[0].shape[1]}], as the first" if found[0].ndim == 2 else "[_, d]"
            raise ConfigError(f"sequence {i} has the shape {one.shape}; it must be {right}.")
    lengths = np.array([min(len(one), steps) for one in found], np.int32)
    xs = np.zeros((len(found), steps, found[0].shape[-1]), np.float32)
    for row, one, n in zip(xs, found, lengths, strict=True):
        start = steps - n if pad == "before" else 0
        row[start : start + n] = one[:n]
    return xs, lengths


_NAMES = ("xs", "lengths", "ys")


def _of_splits(splits: Any) -> Mapping[str, Any]:
    if not isinstance(splits, Mapping) or "train" not in splits:
        what = ", ".join(map(str, splits)) if isinstance(splits, Mapping) else type(splits).__name__
        raise ConfigError(f"splits is {what}; it must be a dict that has train, by which the others are scaled.")
    return splits


def _rows(name: str, xs: Any) -> np.ndarray:
    found = numbers(f"the split {name}", xs)
    if found.ndim < 2 or (name == "train" and not found.size):
        raise ConfigError(f"the split {name} has the shape {found.shape}; it must be [n, …, features], and some of it.")
    return found


def _examples(name: str, of: Any) -> Examples:
    if not isinstance(of, tuple | list) or len(of) != 3:
        raise ConfigError(f"the split {name} is a {type(of).__name__}; it must be (xs, lengths, ys).")
    xs, where = numbers(f"xs of the split {name}", of[0]), f"the split {name}"
    if xs.ndim != 3 or np.shape(of[1]) != xs.shape[:1]:
        raise ConfigError(
            f"{where} has xs of the shape {xs.shape} and lengths of {np.shape(of[1])}; they must be [n, s, d] and [n]."
        )
    return Examples(xs, step_counts(f"of {where}", of[1], xs.shape[1]), of[2])
