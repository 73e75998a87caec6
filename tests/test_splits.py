"""Laws of `seqdyn.data.splits`: parts are disjoint, complete, stratified, and functions of labels and seed."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from _refusals import refusal

from seqdyn.data.splits import balanced_order, beginning, folds, grouped, stratified_split, three_way


def test_split_is_disjoint_complete_stratified_and_a_function_of_the_seed():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 50, 25]))
    rest, held_out = stratified_split(labels, 0.2, seed=3)
    assert np.array_equal(np.sort(np.concatenate([rest, held_out])), np.arange(175))
    assert np.bincount(labels[held_out]).tolist() == [20, 10, 5]
    assert np.array_equal(stratified_split(labels, 0.2, seed=3)[1], held_out)
    assert not np.array_equal(stratified_split(labels, 0.2, seed=4)[1], held_out)


def test_no_part_of_a_split_is_empty():
    assert [len(part) for part in stratified_split(np.array([0, 1]), 0.01, seed=0)] == [1, 1]
    assert [len(part) for part in stratified_split(np.array([0, 1]), 0.99, seed=0)] == [1, 1]
    assert "labels is 1" in refusal(stratified_split, np.array([0]), 0.5, seed=0)
    assert "fraction is 1" in refusal(stratified_split, np.array([0, 1]), 1.0, seed=0)


def test_every_beginning_of_a_balanced_order_is_balanced():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1], [90, 30]))
    order = balanced_order(labels, seed=0)
    assert np.array_equal(np.sort(order), np.arange(120))
    share = np.cumsum(labels[order]) / np.arange(1, 121)
    assert np.all(np.abs(share - 0.25) <= 1 / np.arange(1, 121))


@pytest.mark.parametrize("ratios", [(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.34, 0.33, 0.33)])
def test_three_parts_are_disjoint_complete_stratified_and_a_function_of_the_seed(ratios):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 50, 25]))
    parts = three_way(labels, ratios, seed=3)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(175))
    for part, ratio in zip(parts, ratios, strict=True):
        assert np.array_equal(part, np.sort(part)) and abs(len(part) - ratio * 175) <= 1
        assert np.all(np.abs(np.bincount(labels[part]) - ratio * np.array([100, 50, 25])) <= 2)
    assert all(np.array_equal(a, b) for a, b in zip(parts, three_way(labels, ratios, seed=3), strict=True))
    assert not np.array_equal(parts[1], three_way(labels, ratios, seed=4)[1])


def test_no_part_of_three_is_empty_and_wrong_ratios_are_a_sentence():
    assert [len(part) for part in three_way(np.zeros(3, int), (0.98, 0.01, 0.01))] == [1, 1, 1]
    for wrong in [(0.6, 0.2, 0.3), (0.5, 0.5), (1.2, -0.1, -0.1), (1.0, 0.0, 0.0)]:
        assert f"ratios is {wrong!r}" in refusal(three_way, np.zeros(9, int), wrong)
    assert "labels is 2" in refusal(three_way, np.zeros(2, int))


@pytest.mark.parametrize("ratios", [(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (1 / 3, 1 / 3, 1 / 3)])
def test_no_group_lies_in_two_parts_and_each_part_has_about_its_share(ratios):
    rng = np.random.default_rng(1)
    groups = rng.permutation(np.repeat(np.arange(30), rng.integers(5, 15, 30)))
    parts = grouped(groups, ratios, seed=2)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(groups)))
    of = [set(groups[part]) for part in parts]
    assert not of[0] & of[1] and not of[0] & of[2] and not of[1] & of[2]
    assert np.abs(np.array([len(part) for part in parts]) / len(groups) - ratios).max() < 0.05
    assert all(np.array_equal(a, b) for a, b in zip(parts, grouped(groups, ratios, seed=2), strict=True))
    assert not np.array_equal(parts[0], grouped(groups, ratios, seed=3)[0])


@pytest.mark.parametrize("seed", range(5))
def test_a_group_larger_than_a_part_goes_where_most_is_wanted(seed):
    """Whatever the order of the others, and the small parts are not far from their shares."""
    parts = grouped(np.repeat(np.arange(41), [60] + [1] * 40), seed=seed)
    assert np.array_equal(parts[0], np.arange(60)) and [len(part) for part in parts] == [60, 20, 20]


def test_three_groups_go_into_three_parts_however_unequal():
    parts = grouped(np.repeat([0, 1, 2], [1, 1, 98]), seed=0)
    assert sorted(len(part) for part in parts) == [1, 1, 98]
    assert "9.22" in refusal(grouped, [2**63, 2**63 + 1, 2**63 + 2, -1])  # NumPy makes floats of these, one of three
    assert "groups is 2" in refusal(grouped, np.array([0, 0, 1]))
    assert "ratios" in refusal(grouped, np.arange(9), ratios=(0.5, 0.2, 0.2))


@pytest.mark.parametrize("k", [2, 5, 7])
def test_each_example_is_held_out_once_and_every_fold_is_stratified(k):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [70, 33, 8]))
    pairs = folds(labels, k, seed=1)
    assert len(pairs) == k
    for rest, held_out in pairs:
        assert np.array_equal(np.sort(np.concatenate([rest, held_out])), np.arange(111))
    assert np.array_equal(np.sort(np.concatenate([held_out for _, held_out in pairs])), np.arange(111))
    for label, size in ((0, 70), (1, 33), (2, 8)):
        counts = [int((labels[held_out] == label).sum()) for _, held_out in pairs]
        assert max(counts) - min(counts) <= 1 and sum(counts) == size
    sizes = [len(held_out) for _, held_out in pairs]
    assert max(sizes) - min(sizes) <= 1


def test_folds_that_cannot_be_are_refused():
    assert "class 1 has 2 members" in refusal(folds, np.array([0, 0, 0, 1, 1]), 3)
    assert "folds is 1" in refusal(folds, np.array([0, 1]), 1)


# --- what labels may be -------------------------------------------------------------------------------------

AMOUNTS = {
    "numbers": np.sort(np.random.default_rng(0).normal(size=300)),
    "mostly 0": np.sort(np.maximum(np.random.default_rng(0).normal(size=300), 0)),
    "whole numbers": np.sort(np.random.default_rng(0).integers(0, 10**6, 300)),
    "few of each": np.sort(np.random.default_rng(0).integers(0, 200, 300)),
    "rising": np.arange(300),
}


@pytest.mark.parametrize("y", AMOUNTS.values(), ids=AMOUNTS)
def test_labels_that_say_how_much_are_shuffled_by_the_seed_alone(y):
    """Every function agrees with itself on labels that are all the same, which leave nothing to stratify by."""
    same = np.zeros(len(y), int)
    for split in (
        lambda y, seed: three_way(y, seed=seed),
        lambda y, seed: stratified_split(y, 0.2, seed),
        lambda y, seed: [balanced_order(y, seed), beginning(y, 60, seed)],
        lambda y, seed: [rows for pair in folds(y, 4, seed) for rows in pair],
    ):
        for seed in (0, 7):
            assert all(np.array_equal(a, b) for a, b in zip(split(y, seed), split(same, seed), strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(split(y, 0), split(y, 7), strict=True))
    share = [np.mean(rows / 299) for rows in three_way(y, seed=1)]
    assert max(abs(s - 0.5) for s in share) < 0.15  # about the whole's mean, in places of the sorted file


BINARY = np.random.default_rng(3).permutation(np.repeat([0, 1], [70, 30]))
WAYS = {
    "list": BINARY.tolist(),
    "tuple": tuple(BINARY.tolist()),
    "words": np.array(["neg", "pos"])[BINARY].tolist(),
    "objects": np.array(["neg", "pos"], object)[BINARY],
    "bytes": [b"np"[i : i + 1] for i in BINARY],
    "truth": (BINARY == 1).tolist(),
    "floats": BINARY.astype(float),
    "small": BINARY.astype(np.uint8),
    "jax": jnp.asarray(BINARY),
    "pandas": pd.Series(BINARY, index=range(100, 0, -1)),
    "column": pd.DataFrame({"y": BINARY}),
    "pandas words": pd.Series(np.array(["neg", "pos"])[BINARY], dtype="category"),
}


@pytest.mark.parametrize("labels", WAYS.values(), ids=WAYS)
def test_classes_are_classes_in_whatever_they_are_listed(labels):
    assert np.array_equal(balanced_order(labels, 5), balanced_order(BINARY, 5))
    assert np.array_equal(beginning(labels, np.int64(9), np.int32(5)), beginning(BINARY, 9, 5))
    for split in (
        lambda y: stratified_split(y, np.float32(0.25), 5),
        lambda y: three_way(y, [0.5, 0.25, 0.25], np.int64(5)),
        lambda y: grouped(y, np.array([0.5, 0.5, 0.0]), 5),
        lambda y: [rows for pair in folds(y, np.int8(3), 5) for rows in pair],
    ):
        assert all(np.array_equal(a, b) for a, b in zip(split(labels), split(BINARY), strict=True))


WRONG = {
    "missing": [0, 1, None, 1],
    "missing number": [0, 1, float("nan"), 1],
    "infinite": [0.5, float("inf"), 1, 2],
    "missing word": ["a", float("nan"), "b", "a"],
    "mixed": ["a", 1, "a", 1],
    "ragged": [[0], [1, 2], [0], [1]],
    "rows": np.zeros((4, 2)),
    "complex": np.array([1j, 0, 1j, 0]),
    "a word": "abab",
    "a set": {1, 2, 3, 4},
    "masked": np.ma.array([0, 1, 0, 1], mask=[0, 0, 0, 1]),
}


@pytest.mark.parametrize("labels", WRONG.values(), ids=WRONG)
def test_labels_that_are_none_are_one_sentence(labels):
    for call in (
        lambda: three_way(labels),
        lambda: stratified_split(labels, 0.5, 0),
        lambda: folds(labels, 2),
        lambda: beginning(labels, 2),
    ):
        assert "labels" in refusal(call)
    assert "groups" in refusal(grouped, labels)


@pytest.mark.parametrize("ratios, sizes", [((0.8, 0.2, 0.0), (80, 20, 0)), ([0.9, 0, 0.1], (90, 0, 10))])
def test_a_part_of_ratio_0_is_empty_and_no_other(ratios, sizes):
    parts = three_way(np.arange(100) % 2, ratios)
    assert tuple(map(len, parts)) == sizes and np.array_equal(np.sort(np.concatenate(parts)), np.arange(100))
    assert [len(part) for part in three_way([0, 1], ratios)] == [int(r > 0) for r in ratios]
    assert [len(part) > 0 for part in grouped(np.arange(100) // 10, ratios)] == [r > 0 for r in ratios]


class Tensor:
    """As PyTorch's, whose `values` is a method; of anything but a number its index is one, too."""

    ndim = 0

    def __init__(self, value):
        self.value = value

    def values(self):
        raise RuntimeError("values expected sparse tensor layout")

    def item(self):
        return self.value.item()

    def __index__(self):
        return int(self.value)


@pytest.mark.parametrize("of", [Tensor, lambda n: n, np.asarray, jnp.asarray, xr.DataArray])
def test_a_size_may_be_an_array_or_tensor_of_one_number(of):
    np.testing.assert_array_equal(beginning([0, 1] * 4, of(np.int64(3))), beginning([0, 1] * 4, 3))


def test_sizes_and_seeds_that_are_none_are_refused():
    for call, words in (
        (lambda: beginning([0, 1], -1), "size is -1"),
        (lambda: beginning([0, 1], 1.5), "size is 1.5"),
        (lambda: beginning([0, 1], Tensor(np.float32(1))), "size is"),
        (lambda: beginning([0, 1], Tensor(np.bool(True))), "size is"),
        (lambda: balanced_order([0, 1], -1), "seed is -1"),
        (lambda: balanced_order([0, 1], None), "seed is None"),
        (lambda: folds([0, 1], 2.5), "folds is 2.5"),
        (lambda: stratified_split([0, 1], "half", 0), "fraction is 'half'"),
        (lambda: three_way([0, 1, 2], (0.0, 0.5, 0.5)), "ratios is (0.0, 0.5, 0.5)"),
        (lambda: three_way([0, 1, 2], "0.6"), "ratios is '0.6'"),
    ):
        assert words in refusal(call)


@pytest.mark.parametrize("real", [np.float16, np.float32, np.float64])
def test_groups_that_a_float_makes_one_are_refused(real):
    whole = 2 ** (np.finfo(real).nmant + 1)
    groups = np.array([whole, whole + 1, whole + 2, 1] * 3).astype(real)
    assert "a float that may stand for several groups" in refusal(grouped, groups)
    assert [len(part) for part in grouped((groups > 1).astype(real) + np.arange(12) % 3)] != []
