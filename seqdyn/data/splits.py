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
    if len(ratios) != 3 or any(not r > 0 for r in ratios) or abs(sum(ratios) - 1) > 1e-6:
        raise ConfigError(f"ratios is {ratios!r}, but must be three numbers above 0 that sum to 1.")
    n = len(labels)
    if n < 3:
        raise ConfigError(f"labels is {n}, but must be at least 3 examples, one for each part.")
    train = min(max(round(ratios[0] * n), 1), n - 2)
    validation = min(max(round(ratios[1] * n), 1), n - train - 1)
    order = balanced_order(labels, seed)
    parts = np.split(order, [train, train + validation])
    return np.sort(parts[0]), np.sort(parts[1]), np.sort(parts[2])
