"""Sequences of numbers as a network takes them: padded, cut into windows, and scaled by what the training split says
alone. Arrays may be lists, Series or tensors; ConfigError for what is no array of finite numbers."""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from jaxtyping import Float32, Int32

from seqdyn.data.arrays import array, exact, numbers, step_counts, three
from seqdyn.data.text import Examples
from seqdyn.parts import plain
from seqdyn.types import ConfigError, Pad, one_of, whole


def scaled(splits: Any, low: Any = -1.0, high: Any = 1.0) -> dict[str, Float32[np.ndarray, "..."]]:
    """Each feature (last axis) to a range: low + (high − low) (x − min) / (max − min), min and max those of the split
    'train' alone, so that held-out rows may leave the range and cannot move it. A feature that is constant in 'train'
    becomes the middle. ConfigError for an empty range, for a split of other features than train's, and for what is
    beyond 32-bit floats once it is scaled."""
    low, high = plain(low), plain(high)
    real = [isinstance(end, int | float) and not isinstance(end, bool) and np.isfinite(end) for end in (low, high)]
    if not all(real) or not low < high:
        raise ConfigError(f"low is {low!r} and high is {high!r}, but they must be numbers, low below high.")
    splits = {name: _rows(name, xs) for name, xs in _of_splits(splits).items()}
    _check_features(splits)
    train = splits["train"].reshape(-1, splits["train"].shape[-1]).astype(np.float64)
    least, span = train.min(axis=0), np.ptp(train, axis=0)
    varies = span > 0

    def to_range(name: str, xs: np.ndarray) -> np.ndarray:
        share = np.where(varies, (xs.astype(np.float64) - least) / np.where(varies, span, 1.0), 0.5)
        return numbers(f"the split {name}, scaled by train,", low + (high - low) * share)

    return {name: to_range(name, xs) for name, xs in splits.items()}


def standardised(splits: Any, pad: Pad = "before") -> dict[str, Examples]:
    """Each feature minus the mean, divided by the standard deviation, of the valid steps of 'train'; padding becomes 0,
    and so does, in 'train', a feature that is constant there. ConfigError as of `scaled`."""

    one_of("pad", pad, get_args(Pad))
    splits = {name: _examples(name, of) for name, of in _of_splits(splits).items()}
    _check_features({name: e.xs for name, e in splits.items()})

    def mask(e: Examples) -> np.ndarray:
        t = np.arange(e.xs.shape[1])[None]
        n = e.lengths[:, None]
        return t >= e.xs.shape[1] - n if pad == "before" else t < n

    frames = splits["train"].xs[mask(splits["train"])].astype(np.float64)
    varies = (np.ptp(frames, axis=0) > 0) & (frames.std(axis=0) > 0)  # the mean of what is constant is rounded
    mean, sd = np.where(varies, frames.mean(axis=0), frames[0]), np.where(varies, frames.std(axis=0), 1.0)

    def fitted(name: str, e: Examples) -> Examples:
        xs = np.where(mask(e)[..., None], (e.xs.astype(np.float64) - mean) / sd, 0.0)
        return e._replace(xs=numbers(f"xs of the split {name}, scaled by train,", xs))

    return {name: fitted(name, e) for name, e in splits.items()}


def windows(examples: Any, length: int, hop: int, pad: Pad = "before") -> tuple[Examples, Int32[np.ndarray, " m"]]:
    """Windows of `length` steps that begin every `hop` steps of each sequence, and of which sequence each is: they
    overlap where `hop` is below `length`, and each has its sequence's label (Cui, Chen & Chen 2016, §4.1).

    The last begins where the sequence's last step is its last; a sequence of fewer steps is one window, padded. Cut
    what is trained on, after the split: windows that overlap in two splits would be tested on what was learned.
    ConfigError for a length above that of `examples`, and for labels of every step.
    """
    one_of("pad", pad, get_args(Pad))
    length, hop, leaves = whole("length", length), whole("hop", hop), three("examples", examples)
    xs, lengths, ys = (array(f"{n} of examples", leaf, "an array") for n, leaf in zip(_NAMES, leaves, strict=True))
    if xs.ndim < 2 or length > xs.shape[1]:
        steps = f"the steps of the sequences, {xs.shape[1]}" if xs.ndim > 1 else f"those of xs, of the shape {xs.shape}"
        raise ConfigError(f"length is {length}; it must be at most {steps}.")
    of_steps = ys.ndim > 2 or (xs.shape[1] > 1 and ys.shape[1:2] == xs.shape[1:2])
    if lengths.shape != xs.shape[:1] or ys.shape[:1] != xs.shape[:1] or of_steps:
        raise ConfigError(
            f"ys has the shape {ys.shape} and lengths {lengths.shape}; they must be [n] or [n, k], of whole sequences, "
            "and [n]."
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
    try:
        some = not isinstance(sequences, str | bytes) and len(sequences) > 0
    except (TypeError, RuntimeError):  # an array of no axis, a tensor that is nested
        some = False
    if not some:
        shown = " ".join(repr(sequences).split())
        raise ConfigError(f"sequences is {shown:.60}; it must be a list of arrays [_, d], one at least.")
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


def _check_features(splits: Mapping[str, np.ndarray]) -> None:
    wanted = splits["train"].shape[-1]
    for name, xs in splits.items():
        if xs.shape[-1] != wanted:
            raise ConfigError(f"the split {name} has {xs.shape[-1]} features; it must have those of train, {wanted}.")


def _rows(name: str, xs: Any) -> np.ndarray:
    found = exact(f"the split {name}", xs)
    if found.ndim < 2 or (name == "train" and not found.size):
        raise ConfigError(f"the split {name} has the shape {found.shape}; it must be [n, …, features], and some of it.")
    return found


def _examples(name: str, of: Any) -> Examples:
    where = f"the split {name}"
    xs, lengths, ys = three(where, of)
    xs = exact(f"xs of {where}", xs, "finite, on padding too")
    lengths = step_counts(f"of {where}", lengths, xs.shape[1] if xs.ndim > 1 else 1)
    if xs.ndim != 3 or lengths.shape != xs.shape[:1] or (name == "train" and not xs.size):
        raise ConfigError(
            f"{where} has xs of the shape {xs.shape} and lengths of {lengths.shape}; they must be [n, s, d] and [n], "
            "and some of it."
        )
    return Examples(xs, lengths, ys)
