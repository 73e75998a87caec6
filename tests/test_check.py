"""Laws of `seqdyn.data.check`: data of any type whose values have one meaning are the library's own arrays, the rest is
one sentence."""

import dataclasses
from decimal import Decimal
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from _refusals import refusal

import seqdyn as sd
from seqdyn.data.arrays import array
from seqdyn.data.check import check, check_all
from seqdyn.data.text import Examples
from seqdyn.learn.config import Spec

X64 = False
N, T, D = 6, 5, 2
WORDS = Spec("labelled", steps=T, vocabulary=9, classes=3)
SERIES = Spec("labelled", steps=T, features=D, classes=2)
AMOUNTS = Spec("labelled", steps=T, features=D, classes=0)
NOTES = Spec("next_step", steps=T, features=D, readout="every")
SINGLE = Spec("labelled", steps=T, features=1, classes=0)
SPECS = {"words": WORDS, "series": SERIES, "amounts": AMOUNTS, "notes": NOTES, "single": SINGLE}
RNG = np.random.default_rng(0)


def good(spec):
    xs = RNG.integers(0, 9, (N, T)) if spec.vocabulary else RNG.integers(-4, 5, (N, T, spec.features))
    ys = {"next_step": RNG.integers(0, 2, (N, T, D)), "labelled": np.arange(N) % (spec.classes or 4)}[spec.task]
    whole = spec.vocabulary > 0, spec.task == "labelled" and spec.classes > 0
    return Examples(
        xs.astype(np.int32 if whole[0] else np.float32),
        np.arange(N, dtype=np.int32) % T + 1,
        ys.astype(np.int32 if whole[1] else np.float32),
    )


def checked(spec, split):
    return check(spec, {"train": good(spec), "validation": split})["validation"]


def listed(split):
    return tuple(leaf.tolist() for leaf in split)


WAYS = {
    "tuple": tuple,
    "lists": listed,
    "wide": lambda e: [leaf.astype(np.float64 if leaf.dtype == np.float32 else np.int64) for leaf in e],
    "small": lambda e: tuple(leaf.astype(np.int8) for leaf in e),
    "jax": lambda e: tuple(jnp.asarray(leaf) for leaf in e),
    "whole lengths": lambda e: (e.xs, e.lengths.astype(float), e.ys),
    "series": lambda e: (e.xs, pd.Series(e.lengths, index=range(N, 0, -1)), pd.Series(list(e.ys))),
    "columns": lambda e: (e.xs, e.lengths[:, None], e.ys),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_what_has_one_meaning_is_the_librarys_own_arrays(spec, way):
    right = good(spec)
    found = checked(spec, way(right))
    for leaf, own in zip(found, right, strict=True):
        assert isinstance(leaf, np.ndarray) and leaf.dtype == own.dtype and np.array_equal(leaf, own)


class OfTorch:
    """A tensor of PyTorch, which NumPy cannot take as it is."""

    def __init__(self, values, dtype="torch.float32", why=None):
        self.values, self.dtype, self.why = values, dtype, why

    def detach(self):
        return self

    def float(self):
        return OfTorch(self.values)

    def numpy(self, force=False):
        if self.why or self.dtype == "torch.bfloat16" or not force:
            raise TypeError(self.why or "Got unsupported ScalarType BFloat16")
        return self.values

    def __array__(self, dtype=None, copy=None):
        return self.numpy()


def objects(values):
    """An array of objects of arrays of objects, as a column of lists of lists is read from a file."""
    if not isinstance(values, list):
        return values
    out = np.empty(len(values), object)
    out[:] = [objects(one) for one in values]
    return out


ODD = {
    "bfloat16 tensor": lambda e: e._replace(xs=OfTorch(e.xs, "torch.bfloat16")),
    "list of tensors": lambda e: e._replace(xs=[OfTorch(row, "torch.bfloat16") for row in e.xs]),
    "int4": lambda e: e._replace(xs=jnp.asarray(e.xs, jnp.int4), ys=jnp.asarray(e.ys, jnp.int4)),
    "lists of lists": lambda e: e._replace(xs=objects(e.xs.tolist())),
    "lists of arrays": lambda e: e._replace(xs=[objects(row) for row in e.xs.tolist()]),
    "decimals": lambda e: e._replace(
        xs=[[[Decimal(str(x)) for x in step] for step in row] for row in e.xs.tolist()],
        ys=np.array([Fraction(int(y)) for y in e.ys], object),
    ),
}


@pytest.mark.parametrize("way", ODD.values(), ids=ODD)
def test_numbers_that_numpy_has_no_type_for_are_numbers(way):
    right = good(SERIES)
    for leaf, own in zip(checked(SERIES, tuple(way(right))), right, strict=True):
        assert leaf.dtype == own.dtype and np.array_equal(leaf, own)


def test_words_of_numpys_own_string_type_are_words():
    words = np.dtypes.StringDType(na_object=None)
    assert array("labels", np.array(["a", "bc"], words), "words").tolist() == ["a", "bc"]
    assert "has None at place 1" in refusal(array, "labels", np.array(["a", None], words), "words")


@sd.part
class Squared:
    def build(self):
        return lambda predictions, ys: jnp.mean((predictions - ys) ** 2, axis=-1)


@sd.part
class Persistence:
    """What is next is w times what is."""

    def init(self, key):
        return {"w": jnp.ones(D)}

    def loss(self, params, batch, key):
        return batch.mean(jnp.mean((params["w"] * batch.xs - batch.ys) ** 2, axis=-1))


@pytest.mark.parametrize("own", [dict(loss=Squared()), dict(network=Persistence(), readout="last")], ids=str)
def test_under_a_loss_of_ones_own_steps_may_give_any_numbers(own):
    """Whether they are bits is the library's loss to ask."""
    right = good(NOTES)._replace(ys=RNG.normal(size=(N, T, D)))
    assert "0 or 1" in refusal(checked, NOTES, right)
    spec = dataclasses.replace(NOTES, **own)
    found = check(spec, dict.fromkeys(("train", "validation"), right))["train"].ys
    assert found.dtype == np.float32 and np.array_equal(found, right.ys.astype(np.float32))
    for wrong in (np.where(right.ys > 0, np.nan, right.ys), right.ys[:, 1:], right.ys[..., 0].astype(str)):
        assert "ys of the split train" in refusal(
            check, spec, dict.fromkeys(("train", "validation"), (*right[:2], wrong))
        )


def test_right_arrays_are_not_copied():
    right = good(SERIES)
    assert all(a is b for a, b in zip(checked(SERIES, right), right, strict=True))


def test_one_number_a_step_needs_no_axis_of_its_own():
    right = good(SINGLE)
    assert np.array_equal(checked(SINGLE, (right.xs[..., 0], right.lengths, right.ys[:, None])).xs, right.xs)
    ids = good(WORDS)
    assert np.array_equal(checked(WORDS, (ids.xs[..., None], *ids[1:])).xs, ids.xs)


def test_a_stream_is_ids_in_any_list_and_what_lies_beside_the_splits_is_cast_too():
    spec = Spec("stream", steps=2, batch=1, vocabulary=300, readout="every")
    for text in ([5, 6, 299], np.array([5, 6, 299], np.uint16), pd.Series([5, 6, 299])):
        found = check(spec, {"train": text, "validation": text})["train"]
        assert found.dtype == np.int32 and found.tolist() == [5, 6, 299]
    spec = Spec("labelled", steps=T, vocabulary=9, classes=3, embedding=2, pretrained=True)
    e = good(spec)
    bank = (np.repeat(e.xs[:, None], 2, 1).tolist(), np.repeat(e.lengths[:, None], 2, 1).astype(float), e.ys.tolist())
    beside = {"vectors": np.ones((9, 2)).tolist(), "neighbours": np.zeros((9, 3), np.uint8), "bank": bank}
    found = check(spec, {"train": e, "validation": e} | beside)
    assert found["vectors"].dtype == np.float32 and found["neighbours"].dtype == np.int32
    assert [leaf.dtype for leaf in found["bank"]] == [np.int32] * 3 and found["bank"].xs.shape == (N, 2, T)


def test_synthetic_tasks_take_what_they_are_given():
    assert check(Spec(), None) is None


def replaced(spec, name, value):
    return tuple(good(spec)._replace(**{name: value}))


def at(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


WRONG = [
    (SERIES, "xs", OfTorch(None, why="can't convert Sparse layout tensor to numpy."), ["xs", "Sparse", "dense"]),
    (SERIES, "xs", [OfTorch(None, why="Got unsupported ScalarType QInt8")] * N, ["xs", "QInt8"]),
    (AMOUNTS, "ys", [Decimal(1)] * (N - 1) + [None], ["ys", "None", "place 5"]),
    (AMOUNTS, "ys", [Decimal(1)] * (N - 1) + [Decimal("nan")], ["ys", "nan", "example 5"]),
    (AMOUNTS, "ys", np.ma.array([Decimal(1)] * N, object, mask=[0, 0, 0, 0, 0, 1]), ["ys", "masked"]),
    (SERIES, "xs", [[np.ma.array(np.ones(D), mask=t == 2) for t in range(T)]] * N, ["xs", "masked"]),
    (SERIES, "xs", pd.Series([np.ma.array(np.ones((T, D)), mask=i == 2) for i in range(N)]), ["xs", "masked"]),
    (WORDS, "xs", jnp.zeros((N, T), jnp.float8_e4m3fn), ["xs", "float32", "whole numbers"]),
    (SERIES, "lengths", at(np.full(N, 5.0), 1, 2.5), ["lengths", "2.5", "example 1", "whole number"]),
    (SERIES, "lengths", at(np.full(N, 5.0), 2, np.nan), ["lengths", "nan", "example 2"]),
    (SERIES, "lengths", ["5"] * N, ["lengths", "whole number"]),
    (SERIES, "lengths", np.ones(N, bool), ["lengths", "bool", "mask", "whole number"]),
    (SERIES, "lengths", [5, 5, None, 5, 5, 5], ["lengths", "None"]),
    (SERIES, "xs", at(np.zeros((N, T, D)), (3, 0, 0), 1e39), ["xs", "1e+39", "example 3", "3.4e+38"]),
    (SERIES, "xs", at(np.zeros((N, T, D)), (3, 0, 0), -1e39), ["-1e+39"]),
    (SERIES, "xs", np.zeros((N, T, D), complex), ["xs", "complex"]),
    (SERIES, "xs", np.zeros((N, T, D), "datetime64[s]"), ["xs", "datetime64"]),
    (SERIES, "xs", np.zeros((N, T, D), "timedelta64[s]"), ["xs", "timedelta64"]),
    (SERIES, "xs", np.full((N, T, D), "1"), ["xs", "numbers"]),
    (SERIES, "xs", [[[0, 1]] * T] * (N - 1) + [[[0, 1]]], ["xs", "array"]),
    (SERIES, "xs", None, ["xs of the split validation is None;"]),
    (SERIES, "ys", {0: 1}.values(), ["ys of the split validation is dict_values([1]);"]),
    (SERIES, "ys", (y for y in [0, 1]), ["ys of the split validation is <generator"]),
    (SERIES, "xs", np.array([object()] * N), ["xs", "object"]),
    (SERIES, "ys", ["pos", "neg"] * 3, ["ys", "'pos'", "np.unique"]),
    (SERIES, "ys", [b"pos", b"neg"] * 3, ["ys", "b'pos'", "np.unique"]),
    (SERIES, "ys", [0, 1, 0, 1, 0.5, 1], ["ys", "0.5", "example 4"]),
    (SERIES, "ys", [0, 1, None, 1, 0, 1], ["ys", "None"]),
    (AMOUNTS, "ys", at(np.zeros(N), 1, 1e300), ["ys", "1e+300", "example 1"]),
    (AMOUNTS, "ys", ["1"] * N, ["ys", "numbers"]),
    (WORDS, "xs", np.zeros((N, T)), ["xs", "float64", "whole numbers"]),
    (WORDS, "xs", np.zeros((N, T), bool), ["xs", "bool", "whole numbers"]),
    (WORDS, "xs", np.full((N, T), 2**40), ["xs", str(2**40), "between 0 and 8"]),
    (NOTES, "ys", np.full((N, T, D), 2, np.uint8), ["ys", "2", "0 or 1"]),
]


@pytest.mark.parametrize("spec, name, value, words", WRONG, ids=[" ".join(map(str, case[3])) for case in WRONG])
def test_what_has_no_meaning_is_one_sentence(spec, name, value, words):
    sentence = refusal(checked, spec, replaced(spec, name, value))
    assert "validation" in sentence and all(word in sentence for word in words), sentence


def test_a_split_of_another_form_is_one_sentence():
    e = good(SERIES)
    for split in (e[:2], (*e, e.ys), {"xs": 1}, "train", None, 3):
        assert "(xs, lengths, ys)" in refusal(checked, SERIES, split)
    data = {"train": e, "validation": e, "vectors": [[1e39]]}
    assert "1e+39" in refusal(check, SERIES, data)


@pytest.mark.parametrize("classes", [3, 0])
def test_labels_on_padding_stay_for_a_spec_that_reads_it_and_what_is_none_is_refused_by_it(classes):
    """Whatever the order of the specs."""
    of = {"steps": 4, "batch": 2, "features": 1, "classes": classes, "readout": "every"}
    masked, reads = Spec("labelled", **of), Spec("labelled", mask=False, **of)
    xs, lengths, ys = np.ones((3, 4, 1)), [1, 2, 4], np.ones((3, 4), int)
    odd = ys.copy()
    odd[0, 0] = -100 if classes else 0
    gone = odd.astype(float)
    gone[1, 1] = np.nan
    for specs in ((masked, reads), (reads, masked)):
        found = check_all(specs, dict.fromkeys(("train", "validation"), (xs, lengths, ys)))
        np.testing.assert_array_equal(found["train"].ys, ys)
        assert "ys of the split train" in refusal(
            check_all, specs, dict.fromkeys(("train", "validation"), (xs, lengths, gone))
        )
    found = check_all([masked], dict.fromkeys(("train", "validation"), (xs, lengths, gone)))
    np.testing.assert_array_equal(found["train"].ys, np.where((odd == -100) | np.isnan(gone), 0, odd))
