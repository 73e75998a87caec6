"""Laws of `seqdyn.data.splits`: parts are disjoint, complete, stratified, and functions of labels and seed."""

import numpy as np
import pytest
from _refusals import refusal

from seqdyn.data.splits import balanced_order, folds, grouped, stratified_split, three_way


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


def test_three_groups_go_into_three_parts_however_unequal():
    parts = grouped(np.repeat([0, 1, 2], [1, 1, 98]), seed=0)
    assert sorted(len(part) for part in parts) == [1, 1, 98]
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
