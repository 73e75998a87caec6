"""Laws of `seqdyn.data.packaged` and `scaling`: what the embedded sets are, and that training rows alone scale them."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from _refusals import refusal

from seqdyn.data import extras
from seqdyn.data.check import check
from seqdyn.data.packaged import breast_cancer, digits, japanese_vowels, table, wine
from seqdyn.data.scaling import padded, scaled, standardised, windows
from seqdyn.data.splits import three_way
from seqdyn.data.text import Examples
from seqdyn.learn.config import Spec

LOADERS = {
    "digits": (digits, (8, 8), 10, [1078, 359, 360]),
    "japanese_vowels": (japanese_vowels, (29, 12), 9, [216, 54, 370]),
    "breast_cancer": (breast_cancer, (30, 1), 2, [341, 114, 114]),
    "wine": (wine, (13, 1), 3, [107, 36, 35]),
}
every_set = pytest.mark.parametrize("name", LOADERS)


@every_set
def test_a_packaged_set_fits_its_task_and_each_class_is_in_each_split(name):
    load, (steps, features), classes, sizes = LOADERS[name]
    data = load(seed=1)
    assert [len(data[split].ys) for split in ("train", "validation", "test")] == sizes
    check(Spec("labelled", steps, 8, features=features, classes=classes), data)
    for examples in data.values():
        assert set(examples.ys.tolist()) == set(range(classes))


@every_set
def test_a_split_is_a_function_of_the_seed_and_no_example_is_in_two(name):
    load = LOADERS[name][0]
    one, same, other = load(seed=1), load(seed=1), load(seed=2)
    assert all(np.array_equal(one[split].xs, same[split].xs) for split in one)
    assert not np.array_equal(one["validation"].ys, other["validation"].ys) or not np.array_equal(
        one["validation"].xs, other["validation"].xs
    )
    rows = [row.tobytes() for examples in one.values() for row in examples.xs]
    assert len(set(rows)) == len(rows)


def test_digits_are_rows_of_an_image_from_the_top():
    seven = digits()["train"]
    seven = seven.xs[seven.ys == 7].mean(axis=0)
    assert seven.min() >= 0 and seven.max() <= 1
    # A seven has its bar above and a stroke below it: two columns of ink at the bottom, five at the top.
    assert np.sum(seven[1] > 0.4) > np.sum(seven[6] > 0.4)


def test_coloured_digits_are_the_digits_in_hues_that_do_not_depend_on_them():
    plain, coloured = digits()["train"], digits(coloured=True)["train"]
    pixels = coloured.xs.reshape(-1, 8, 8, 3)
    np.testing.assert_allclose(pixels.max(axis=-1), plain.xs, atol=1e-6)
    check(Spec("labelled", 8, 8, features=24, classes=10, kind="image", augment=("colour",)), digits(coloured=True))
    red = pixels.sum(axis=(1, 2))[:, 0] / pixels.sum(axis=(1, 2, 3))
    assert abs(np.corrcoef(red, plain.ys)[0, 1]) < 0.1 and red.std() > 0.2


def test_the_official_test_split_of_the_vowels_does_not_depend_on_the_seed():
    one, other = japanese_vowels(seed=1)["test"], japanese_vowels(seed=2)["test"]
    assert np.array_equal(one.ys, other.ys) and np.array_equal(one.lengths, other.lengths)
    assert one.lengths.max() == 29 and one.lengths.min() == 7


@pytest.mark.parametrize("pad", ["before", "after"])
def test_vowels_are_standardised_on_live_training_frames_and_padding_is_zero(pad):
    data = japanese_vowels(pad=pad)
    step = np.arange(29)[None]
    for name, e in data.items():
        mask = step >= 29 - e.lengths[:, None] if pad == "before" else step < e.lengths[:, None]
        assert not e.xs[~mask].any()
        frames = e.xs[mask].astype(np.float64)
        if name == "train":
            np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-6)
            np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-6)
        else:
            assert np.abs(frames.mean(axis=0)).max() > 1e-3


def test_held_out_rows_cannot_move_what_scales_them():
    rng = np.random.default_rng(0)
    rows, ys = rng.normal(size=(60, 4)).astype(np.float32), np.repeat([0, 1, 2], 20).astype(np.int32)
    plain = table(rows, ys)
    held = np.concatenate(three_way(ys)[1:])
    moved = rows.copy()
    moved[held] = 1e6 * moved[held]
    attacked = table(moved, ys)
    assert np.array_equal(plain["train"].xs, attacked["train"].xs)
    assert not np.array_equal(plain["test"].xs, attacked["test"].xs)


def test_training_rows_fill_the_range_and_others_may_leave_it():
    xs = {"train": np.float32([[0, 7], [10, 7], [5, 7]]), "test": np.float32([[20, 8], [-10, 6]])}
    found = scaled(xs, -1.0, 1.0)
    np.testing.assert_array_equal(found["train"], np.float32([[-1, 0], [1, 0], [0, 0]]))
    np.testing.assert_array_equal(found["test"], np.float32([[3, 0], [-3, 0]]))
    np.testing.assert_array_equal(scaled(xs, 0.0, 1.0)["train"][:, 0], np.float32([0, 1, 0.5]))
    assert "low is 1.0" in refusal(scaled, xs, 1.0, 1.0)


def test_a_test_split_cannot_move_what_standardises_it():
    rng = np.random.default_rng(0)

    def examples(scale):
        return Examples((scale * rng.normal(size=(6, 5, 2))).astype(np.float32), np.int32([5] * 6), np.int32([0] * 6))

    train = examples(1)
    some, other = (standardised({"train": train, "test": examples(s)}) for s in (1, 1e6))
    assert np.array_equal(some["train"].xs, other["train"].xs)


def test_a_table_is_read_feature_by_feature_or_row_by_row():
    by_feature, by_row = wine(), wine(reading="row")
    assert by_feature["train"].xs.shape == (107, 13, 1) and by_row["train"].xs.shape == (107, 1, 13)
    assert np.array_equal(by_feature["test"].xs[..., 0], by_row["test"].xs[:, 0])
    assert set(by_row["train"].lengths) == {1}
    assert "reading is 'columns'" in refusal(wine, reading="columns")
    assert "ratios" in refusal(wine, ratios=(0.5, 0.5, 0.5))


def test_a_table_may_be_of_lists_and_its_labels_numbers():
    rng = np.random.default_rng(0)
    rows, ys = rng.normal(size=(40, 3)), rng.normal(size=40)
    found = table(rows.tolist(), ys.tolist(), ratios=[0.75, 0.25, 0])
    assert {name: e.xs.shape for name, e in found.items()} == {"train": (30, 3, 1), "validation": (10, 3, 1)}
    assert found["train"].ys.dtype == np.float32 and found["train"].xs.dtype == np.float32
    for one, other in zip(found.values(), table(rows, ys[:, None], ratios=[0.75, 0.25, 0]).values(), strict=True):
        assert np.array_equal(one.ys, other.ys)
    check(Spec("labelled", steps=1, features=3, classes=0), table(rows, ys, reading="row"))
    assert table(rows, np.arange(40) % 2)["train"].ys.dtype == np.int32
    for wrong in (rows[0], rows[1:], np.full((40, 3), np.nan), "rows"):
        assert "rows" in refusal(table, wrong, ys)
    assert "ys" in refusal(table, rows, ["a"] * 40)


def test_sequences_are_cut_at_their_end_and_padded_on_the_side_asked_for():
    sequences = [np.arange(n, dtype=np.float32)[:, None] + 1 for n in (2, 5)]
    before, after = padded(sequences, 3, "before"), padded(sequences, 3, "after")
    assert before[0][..., 0].tolist() == [[0, 1, 2], [1, 2, 3]] and before[1].tolist() == [2, 3]
    assert after[0][..., 0].tolist() == [[1, 2, 0], [1, 2, 3]]


@pytest.mark.parametrize("pad", ["before", "after"])
def test_windows_overlap_cover_every_step_and_keep_label_and_order(pad):
    sequences = [np.arange(10 * i, 10 * i + n, dtype=np.float32)[:, None] for i, n in enumerate((7, 4, 2, 8))]
    whole = Examples(*padded(sequences, 8, pad), np.int32([5, 6, 7, 8]))
    cut, rows = windows(whole, 4, 3, pad)
    assert rows.tolist() == [0, 0, 1, 2, 3, 3, 3] and np.array_equal(cut.ys, whole.ys[rows])
    mask = [xs[4 - n :, 0] if pad == "before" else xs[:n, 0] for xs, n in zip(cut.xs, cut.lengths, strict=True)]
    found = [row.tolist() for row in mask]
    assert found[:3] == [[0, 1, 2, 3], [3, 4, 5, 6], [10, 11, 12, 13]] and found[3] == [20, 21]
    assert found[4:] == [[30, 31, 32, 33], [33, 34, 35, 36], [34, 35, 36, 37]]
    assert cut.xs[3].sum() == 41  # the rest is padding
    ids, _ = windows(whole._replace(xs=whole.xs[..., 0].astype(np.int32)), 4, 3, pad)
    np.testing.assert_array_equal(ids.xs, cut.xs[..., 0])
    assert "length is 9; it must be at most" in refusal(windows, whole, 9, 1)
    assert "hop" in refusal(windows, whole, 4, 0)
    for of_steps in (np.zeros((4, 8, 1)), np.zeros((4, 8))):
        assert "ys has the shape" in refusal(windows, whole._replace(ys=of_steps), 4, 1)


ROWS, WHOLE = np.arange(12.0).reshape(6, 2), (np.arange(36.0).reshape(6, 3, 2), np.array([3, 2, 1, 3, 3, 3]), [0] * 6)


def test_lists_and_frames_are_scaled_and_padded_as_arrays_are():
    found = scaled({"train": pd.DataFrame(ROWS), "test": ROWS.tolist()})
    np.testing.assert_array_equal(found["test"], scaled({"train": ROWS})["train"])
    np.testing.assert_array_equal(padded([ROWS.tolist(), ROWS[:1].tolist()], 3)[0], padded([ROWS, ROWS[:1]], 3)[0])
    lists = tuple(np.asarray(leaf).tolist() for leaf in WHOLE)
    one, other = (standardised({"train": given})["train"] for given in (lists, Examples(*map(np.asarray, WHOLE))))
    np.testing.assert_array_equal(one.xs, other.xs)


def test_numbers_whose_differences_32_bits_lose_are_scaled_by_them():
    ticks = 10.0 * np.arange(40)
    rows = np.stack([1.7e9 + ticks, 1e6 * ticks], axis=1)  # time stamps beside what 32 bits hold
    small = np.stack([ticks, 1e6 * ticks], axis=1)
    for of in (
        np.asarray,
        lambda a: a.astype(np.int64),
        lambda a: pd.DataFrame(a, index=range(40, 0, -1)),
        np.longdouble,
    ):
        np.testing.assert_allclose(scaled({"train": of(rows)})["train"], scaled({"train": small})["train"], atol=1e-6)
        found, right = (
            standardised({"train": (np.asarray(of(one))[:, None], [1] * 40, [0] * 40)})["train"].xs
            for one in (rows, small)
        )
        np.testing.assert_allclose(found, right, atol=1e-6)
        found, right = (table(of(one), [0, 1] * 20)["test"].xs for one in (rows, small))
        np.testing.assert_allclose(found, right, atol=1e-6)


def test_a_feature_that_is_constant_in_train_is_0_whatever_its_mean_is_rounded_to():
    """The float64 mean of 0.1 three times is not 0.1."""
    found = standardised({"train": (np.full((3, 1, 1), 0.1), [1] * 3, [0] * 3), "test": ([[[0.6]]], [1], [0])})
    assert not found["train"].xs.any() and found["test"].xs.item() == pytest.approx(0.5)


def test_the_ends_of_a_range_may_be_arrays_of_one_number():
    right = scaled({"train": ROWS}, -2.0, 3.0)["train"]
    for of in (np.array, np.longdouble, jnp.float32, np.float16, lambda end: int(end)):
        np.testing.assert_array_equal(scaled({"train": ROWS}, of(-2.0), of(3.0))["train"], right)


class Nested:
    """As PyTorch's nested tensors, of which nothing is known."""

    def __len__(self):
        raise RuntimeError("Internal error: NestedTensorImpl doesn't support sizes.")

    def __repr__(self):
        return "nested(\n  1)"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: scaled({"train": ROWS, "test": ROWS[:, :1]}),
            "the split test has 1 features; it must have those of train, 2",
        ),
        (
            lambda: standardised({"train": WHOLE, "test": (WHOLE[0][..., :1], *WHOLE[1:])}),
            "the split test has 1 features",
        ),
        (lambda: standardised({"train": tuple(leaf[:0] for leaf in WHOLE)}), "xs of the shape (0,"),
        (lambda: scaled({"train": ROWS}, False, True), "low is False"),
        (lambda: scaled({"train": ROWS}, np.zeros(2)), "low is"),
        (lambda: padded(Nested(), 3), "sequences is nested"),
        (lambda: padded(np.array(3.0), 3), "sequences is array"),
        (lambda: windows(WHOLE[:2], 2, 1), "examples is a tuple of 2; it must be (xs, lengths, ys)"),
        (lambda: windows(None, 2, 1), "examples is a NoneType"),
        (lambda: windows(dict(zip("abc", WHOLE, strict=True)), 2, 1), "examples is a dict"),
        (lambda: scaled({"train": [[1.0, np.nan], [2.0, 3.0]]}), "the split train has nan"),
        (lambda: scaled({"train": np.arange(5.0)}), "the shape (5,)"),
        (lambda: scaled({"train": [[0.0], [1e-38]], "test": [[1e38]]}), "the split test, scaled by train, has 2e+76"),
        (lambda: scaled({"train": ROWS}, -1e39, 1e39), "the split train, scaled by train, has"),
        (
            lambda: standardised({name: ([[[0.0], [x]]], [2], [0]) for name, x in (("train", 1e-38), ("test", 1e38))}),
            "xs of the split test, scaled by train, has 2e+76",
        ),
        (lambda: scaled({"test": ROWS}), "splits is test"),
        (lambda: scaled({"train": ROWS}, low=-np.inf), "low is -inf"),
        (lambda: standardised({"train": (WHOLE[0] * np.nan, *WHOLE[1:])}), "xs of the split train has nan"),
        (lambda: standardised({"train": (WHOLE[0], [4] * 6, WHOLE[2])}), "lengths of the split train has 4"),
        (lambda: padded([ROWS, ROWS[:, :1]], 3), "sequence 1 has the shape (6, 1)"),
        (lambda: padded([ROWS[0]], 3), "sequence 0 has the shape (2,)"),
        (lambda: padded([], 3), "sequences is []"),
        (lambda: windows((WHOLE[0], [4] * 6, WHOLE[2]), 2, 1), "lengths of examples has 4"),
        (lambda: windows((WHOLE[0], [0] * 6, WHOLE[2]), 2, 1), "lengths of examples has 0"),
        (lambda: table([np.ma.array([1.0, 2.0], mask=[0, 1])] * 6, [0] * 6), "rows has masked entries"),
    ],
)
def test_what_cannot_be_scaled_padded_or_cut_is_one_sentence(call, words):
    assert words in refusal(call)


def test_a_table_s_labels_keep_their_values_where_they_are_large():
    ys = np.arange(40) * 2.0**31
    np.testing.assert_array_equal(np.sort(np.concatenate([e.ys for e in table(np.eye(40), ys).values()])), ys)


def test_a_missing_library_is_a_sentence_that_names_its_extra(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    assert refusal(digits) == "the data set digits needs scikit-learn: install seqdyn[images]."
    assert refusal(japanese_vowels).endswith("needs aeon: install seqdyn[series].")
