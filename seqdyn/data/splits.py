"""Which examples are trained on, chosen by, and tested on: functions of the labels and a seed alone.

Labels are one for each example, [n]: an array, list, tuple, Series or tensor of whole numbers, words, bytes or truth
values, or a table [n, 1] of them. They are classes, and each part gets its share of each class, but where they say how
much and not which: numbers that are not whole; whole ones of more than 20 values that are not counted from 0 or 1
without a gap; and labels of any type that more than half of the examples share with no other. Examples of such labels
are shuffled by the seed alone, as they are where all labels are the same.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from seqdyn.data.arrays import array, first_wrong
from seqdyn.types import ConfigError, whole

Rows = Int[np.ndarray, "_"]
"""Numbers of examples, ascending."""
FEW = 20
"""Whole numbers of so many values are classes, whatever the values."""


class Strata(NamedTuple):
    """Which examples belong together."""

    names: list[Any]
    """Ascending."""
    of: Int[np.ndarray, " n"]
    """The number of each example's name."""
    sizes: Int[np.ndarray, " k"]


def balanced_order(labels: Any, seed: Any) -> Int[np.ndarray, " n"]:
    """A random order of the examples in which every beginning holds the classes in their proportions.

    A shorter beginning is part of a longer one. ConfigError for labels that are no list of numbers or words, or of
    which one is missing (None, NaN), here and below.
    """
    strata = _classes(labels)
    rng = np.random.default_rng(whole("seed", seed, 0))
    place = np.empty(len(strata.of))
    for label in range(len(strata.names)):
        members = rng.permutation(np.flatnonzero(strata.of == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")


def beginning(labels: Any, size: Any, seed: Any = 0) -> Rows:
    """The first `size` of the balanced order (all, of fewer, or for None), ascending: fewer examples, each smaller set
    part of every larger one."""
    return np.sort(balanced_order(labels, seed)[: None if size is None else whole("size", size, 0)])


def stratified_split(labels: Any, fraction: Any, seed: Any) -> tuple[Rows, Rows]:
    """`(rest, held_out)`: disjoint, complete, ascending indices; `held_out` has `fraction` of the examples,
    rounded, and of each class, and neither is empty. ConfigError for fewer than two examples or a fraction
    outside (0, 1)."""
    order = balanced_order(labels, seed)
    n = len(order)
    if n < 2:
        raise ConfigError(f"labels is {n}, but must be at least 2 examples, one for each part.")
    if not _is_number(fraction) or not 0 < fraction < 1:
        raise ConfigError(f"fraction is {fraction!r}, but must be between 0 and 1, both excluded.")
    k = min(max(round(fraction * n), 1), n - 1)
    return np.sort(order[k:]), np.sort(order[:k])


def three_way(labels: Any, ratios: Any = (0.6, 0.2, 0.2), seed: Any = 0) -> tuple[Rows, Rows, Rows]:
    """`(train, validation, test)`: disjoint, complete, ascending indices, each class in proportion in each.

    For a set without an official test split. A part of ratio 0 is empty, no other is. ConfigError for ratios that are
    not three numbers from 0 with sum 1, the first and another above 0, and for fewer examples than parts.
    """
    shares = _ratios(ratios)
    order = balanced_order(labels, seed)
    n = len(order)
    if n < np.count_nonzero(shares):
        raise ConfigError(
            f"labels is {n}, but must be at least {np.count_nonzero(shares)} examples, one for each part."
        )
    train = min(max(round(shares[0] * n), 1), n - np.count_nonzero(shares[1:]))
    validation = min(max(round(shares[1] * n), 1), n - train - 1) if shares[1:].all() else n - train
    validation = validation if shares[1] else 0
    parts = np.split(order, [train, train + validation])
    return np.sort(parts[0]), np.sort(parts[1]), np.sort(parts[2])


def grouped(groups: Any, ratios: Any = (0.6, 0.2, 0.2), seed: Any = 0) -> tuple[Rows, Rows, Rows]:
    """`three_way`, but no group (a speaker, say) lies in two parts: what is tested then is a voice never heard.

    Groups are taken in a random order, but those first, by size, that are larger than the smallest share. Each goes
    into the part that is furthest, in examples, from its share; every part whose ratio is not 0 gets one. ConfigError
    for wrong ratios, for fewer groups than parts, and for floats so large (2⁵³, of 32 bits 2²⁴) that several whole
    numbers become one.
    """
    shares = _ratios(ratios)
    strata = _strata("groups", groups)
    kind = getattr(groups, "dtype", None)
    most = 2.0 ** (np.finfo(kind).nmant + 1 if isinstance(kind, np.dtype) and kind.kind == "f" else 53)
    large = next((name for name in strata.names if isinstance(name, float) and abs(name) >= most), None)
    if large is not None:
        right = "whole numbers of 64 bits, or words"
        raise ConfigError(f"groups has {large!r}, a float that may stand for several groups; it must be {right}.")
    some = np.flatnonzero(shares)
    if len(strata.names) < len(some):
        count = len(strata.names)
        raise ConfigError(f"groups is {count}, but must be at least {len(some)} groups, one for each part.")
    wanted, given = shares * len(strata.of), np.zeros(3)
    parts: list[list[int]] = [[], [], []]
    order = np.random.default_rng(whole("seed", seed, 0)).permutation(len(strata.names))
    sizes = strata.sizes[order]
    order = order[np.argsort(-np.where(sizes > wanted[some].min(), sizes, 0), kind="stable")]
    for left, g in zip(range(len(order), 0, -1), order, strict=True):
        empty = [p for p in some if not parts[p]]
        open_to = empty if len(empty) == left else some
        part = max(open_to, key=lambda p: wanted[p] - given[p])
        parts[part].append(g)
        given[part] += strata.sizes[g]
    train, validation, test = (np.flatnonzero(np.isin(strata.of, part)) for part in parts)
    return train, validation, test


def folds(labels: Any, k: Any, seed: Any = 0) -> list[tuple[Rows, Rows]]:
    """k pairs `(rest, held_out)` of ascending indices: each example is held out once, each class in proportion.

    ConfigError for fewer than two folds and for a class with fewer members than folds.
    """
    if whole("folds", k) < 2:
        raise ConfigError(f"folds is {k}, but must be at least 2.")
    strata = _classes(labels)
    sizes = strata.sizes
    if len(sizes) == 0 or sizes.min() < k:
        rare = "there are no examples"
        if len(sizes):
            rare = f"class {strata.names[sizes.argmin()]} has {sizes.min()} members"
        raise ConfigError(f"folds is {k}, but must be at most the members of each class: {rare}.")
    rng = np.random.default_rng(whole("seed", seed, 0))
    fold, start = np.empty(len(strata.of), int), 0
    for label, size in enumerate(sizes):
        # Each class goes on where the one before ended, so that the folds' sizes differ by one at most.
        fold[rng.permutation(np.flatnonzero(strata.of == label))] = (start + np.arange(size)) % k
        start += size
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(k)]


def _strata(field: str, labels: Any) -> Strata:
    """The examples by their labels, whatever those are."""
    right = "one label for each example, [n]: numbers, words or truth values"
    found = array(field, labels, right)
    found = found[:, 0] if found.shape[1:] == (1,) else found  # a table of one column
    if found.ndim != 1:
        raise ConfigError(f"{field} has the shape {found.shape}; it must be {right}.")
    if found.dtype.kind == "f":
        first_wrong(field, found, ~np.isfinite(found), "finite")
    names, of, sizes = np.unique(found, return_inverse=True, return_counts=True)
    return Strata(names.tolist(), of, sizes)


def _classes(labels: Any) -> Strata:
    """The examples by their classes: all in one where labels are no classes."""
    strata = _strata("labels", labels)
    n, k = len(strata.of), len(strata.names)
    alone = np.count_nonzero(strata.sizes == 1)
    amounts = False
    if k and isinstance(strata.names[0], int | float) and not isinstance(strata.names[0], bool):
        counted = strata.names[0] in (0, 1) and strata.names[-1] - strata.names[0] == k - 1
        amounts = any(v != int(v) for v in strata.names) or (k > FEW and not counted)
    if amounts or 2 * alone > n:
        return Strata(["of all examples"], np.zeros(n, int), np.array([n]))
    return strata


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _ratios(ratios: Any) -> np.ndarray:
    """As an array of floats."""
    try:
        shares = np.asarray(ratios)
        shares = shares.astype(float) if shares.dtype.kind in "iuf" and shares.shape == (3,) else np.zeros(3)
    except ValueError:  # a list in a list
        shares = np.zeros(3)
    if not np.all(shares >= 0) or abs(shares.sum() - 1) > 1e-6 or shares[0] <= 0 or not shares[1:].any():
        shown = ratios.tolist() if isinstance(ratios, np.ndarray) else ratios
        raise ConfigError(f"ratios is {shown!r}, but must be three numbers that sum to 1, the first and another not 0.")
    return shares
