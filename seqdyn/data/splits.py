"""Which examples are trained on, chosen by, and tested on: functions of the labels and a seed alone."""

import numpy as np
from jaxtyping import Int

from seqdyn.types import ConfigError


def balanced_order(labels: Int[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    """A random order of the examples in which every beginning holds the classes in their proportions.

    A shorter beginning is part of a longer one.
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")


def beginning(labels: Int[np.ndarray, " n"], size: int | None, seed: int = 0) -> Int[np.ndarray, " m"]:
    """The first `size` of the balanced order (all, of fewer, or for None), ascending: fewer examples, each smaller set
    part of every larger one."""
    return np.sort(balanced_order(labels, seed)[:size])


def stratified_split(
    labels: Int[np.ndarray, " n"], fraction: float, seed: int
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " k"]]:
    """`(rest, held_out)`: disjoint, complete, ascending indices; `held_out` has `fraction` of the examples,
    rounded, and of each class, and neither is empty. ConfigError for fewer than two examples or a fraction
    outside (0, 1)."""
    n = len(labels)
    if n < 2:
        raise ConfigError(f"labels is {n}, but must be at least 2 examples, one for each part.")
    if not 0 < fraction < 1:
        raise ConfigError(f"fraction is {fraction!r}, but must be between 0 and 1, both excluded.")
    k = min(max(round(fraction * n), 1), n - 1)
    order = balanced_order(labels, seed)
    return np.sort(order[k:]), np.sort(order[:k])


def three_way(
    labels: Int[np.ndarray, " n"], ratios: tuple[float, ...] = (0.6, 0.2, 0.2), seed: int = 0
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " k"], Int[np.ndarray, " j"]]:
    """`(train, validation, test)`: disjoint, complete, ascending indices, each class in proportion in each.

    For a set without an official test split. ConfigError for ratios that are not three numbers above 0 with sum 1,
    and for fewer than three examples.
    """
    _check_ratios(ratios)
    n = len(labels)
    if n < 3:
        raise ConfigError(f"labels is {n}, but must be at least 3 examples, one for each part.")
    train = min(max(round(ratios[0] * n), 1), n - 2)
    validation = min(max(round(ratios[1] * n), 1), n - train - 1)
    order = balanced_order(labels, seed)
    parts = np.split(order, [train, train + validation])
    return np.sort(parts[0]), np.sort(parts[1]), np.sort(parts[2])


def grouped(
    groups: Int[np.ndarray, " n"], ratios: tuple[float, ...] = (0.6, 0.2, 0.2), seed: int = 0
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " k"], Int[np.ndarray, " j"]]:
    """`three_way`, but no group (a speaker, say) lies in two parts: what is tested then is a voice never heard.

    Groups are taken in a random order, each into the part that is furthest, in examples, from its share; every part
    gets one. ConfigError for wrong ratios and for fewer than three groups.
    """
    _check_ratios(ratios)
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < 3:
        raise ConfigError(f"groups is {len(names)}, but must be at least 3 groups, one for each part.")
    wanted, given = np.asarray(ratios) * len(groups), np.zeros(3)
    parts: list[list[int]] = [[], [], []]
    for left, g in zip(range(len(names), 0, -1), np.random.default_rng(seed).permutation(len(names)), strict=True):
        empty = [p for p in range(3) if not parts[p]]
        open_to = empty if len(empty) == left else range(3)
        part = max(open_to, key=lambda p: wanted[p] - given[p])
        parts[part].append(g)
        given[part] += sizes[g]
    train, validation, test = (np.flatnonzero(np.isin(groups, names[part])) for part in parts)
    return train, validation, test


def folds(
    labels: Int[np.ndarray, " n"], k: int, seed: int = 0
) -> list[tuple[Int[np.ndarray, " m"], Int[np.ndarray, " j"]]]:
    """k pairs `(rest, held_out)` of ascending indices: each example is held out once, each class in proportion.

    ConfigError for fewer than two folds and for a class with fewer members than folds.
    """
    if k < 2:
        raise ConfigError(f"folds is {k}, but must be at least 2.")
    names, sizes = np.unique(labels, return_counts=True)
    if len(names) == 0 or sizes.min() < k:
        rare = f"class {names[sizes.argmin()]} has {sizes.min()} members" if len(names) else "there are no examples"
        raise ConfigError(f"folds is {k}, but must be at most the members of each class: {rare}.")
    rng = np.random.default_rng(seed)
    fold, start = np.empty(len(labels), int), 0
    for name, size in zip(names, sizes, strict=True):
        # Each class goes on where the one before ended, so that the folds' sizes differ by one at most.
        fold[rng.permutation(np.flatnonzero(labels == name))] = (start + np.arange(size)) % k
        start += size
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(k)]


def _check_ratios(ratios: tuple[float, ...]) -> None:
    if len(ratios) != 3 or any(not r > 0 for r in ratios) or abs(sum(ratios) - 1) > 1e-6:
        raise ConfigError(f"ratios is {ratios!r}, but must be three numbers above 0 that sum to 1.")
