"""Laws of training on augmented batches: strength 0 is none, and what does not fit is refused."""

from functools import cache
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refusals import refusal

from seqdyn import fields
from seqdyn.backend import compiled
from seqdyn.data.augment import AUGMENTATIONS
from seqdyn.data.check import check
from seqdyn.data.text import Examples
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.learn.train import chunk, init, sample

X64 = False


def vowels(**changes):
    """A spec of short sequences of numbers, and data for it with a bank."""
    rng = np.random.default_rng(0)
    lengths = np.resize(np.int32([6, 3, 5]), 12)
    mask = np.arange(6)[None] >= 6 - lengths[:, None]
    xs = np.where(mask[..., None], rng.normal(size=(12, 6, 2)), 0).astype(np.float32)
    one = Examples(xs, lengths, np.resize(np.int32([0, 1, 2]), 12))
    bank = Examples(np.stack([2 * xs, 3 * xs], axis=1), np.stack([lengths, lengths], axis=1), one.ys)
    spec = Spec(**({"task": "labelled", "steps": 6, "batch": 4, "features": 2, "classes": 3, "hidden": (4,)} | changes))
    return spec, {"train": one, "validation": one, "bank": bank}


@cache
def program(spec):
    """Five updates, compiled once for every strength."""
    return compiled(lambda spec, data: chunk(spec, init(spec, data), data, 5))


def trained(spec, data, strength):
    state, metrics = program(spec)(spec.having(strength=strength).arrays(), jax.tree.map(jnp.asarray, data))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)], np.asarray(metrics["loss"])


def test_training_at_strength_0_is_training_without_and_at_1_another():
    (spec, data), augment = vowels(), ("bank", "jitter", "time_warp")
    plain, same, other = trained(spec, data, 0.0), *(trained(vowels(augment=augment)[0], data, s) for s in (0.0, 1.0))
    assert all(np.array_equal(a, b) for a, b in zip(plain[0], same[0], strict=True))
    assert np.array_equal(plain[1], same[1])
    assert not np.array_equal(plain[1], other[1]) and np.isfinite(other[1]).all()


def test_the_batch_of_an_update_is_a_function_of_seed_and_number():
    spec, data = vowels(augment=("bank", "jitter"))
    data = jax.tree.map(jnp.asarray, data)

    def batch(seed, n):
        of = spec.having(seed=seed, strength=1.0).arrays()
        return sample(of, data, (jnp.arange(4), None), jnp.int32(n)).xs

    np.testing.assert_array_equal(batch(0, 3), batch(0, 3))
    assert not np.array_equal(batch(0, 3), batch(0, 4)) and not np.array_equal(batch(0, 3), batch(1, 3))


def test_the_names_that_a_spec_knows_are_the_augmentations_there_are():
    assert set(get_args(fields.AugmentName)) == set(AUGMENTATIONS)
    assert {a.kind for a in AUGMENTATIONS.values()} <= {*get_args(fields.Kind), "text", "any"}


@pytest.mark.parametrize(
    "changes, strength, sentence",
    [
        (dict(augment=("blur",)), 0.0, "augment is ('blur',); it must be a tuple of names among time_warp,"),
        (dict(augment={"jitter": 1}), 0.0, "it must be a tuple of names"),
        (dict(augment=("rotation",)), 0.0, "augment has 'rotation' for data of the kind 'series'; it is of image."),
        (dict(augment=("jitter",), kind="image"), 0.0, "augment has 'jitter' for data of the kind 'image'"),
        (dict(augment=("jitter",), features=0, vocabulary=5), 0.0, "'jitter' for ids, which are text; it is of series"),
        (dict(augment=("zoom",), kind="image", features=7), 0.0, "features is 7; an image has a multiple of steps, 6"),
        (dict(augment=("colour",), kind="image", features=6), 0.0, "features is 6; it needs three channels, 18"),
        (dict(kind="film"), 0.0, "kind is 'film'"),
        (dict(), 0.5, "strength is 0.5; no spec has augment on."),
        (dict(augment=("jitter",)), -1.0, "strength is -1.0; it must be at least 0."),
        (dict(task="adding", features=0, classes=2, augment=("jitter",)), 0.0, "for the task 'adding'"),
    ],
)
def test_an_augmentation_that_does_not_fit_is_a_sentence(changes, strength, sentence):
    def experiment():
        spec, _ = vowels(**changes)
        return Experiment("one", (spec,), grid(strength=strength), 4, 2, 2)

    assert sentence in refusal(experiment)


def test_a_bank_that_is_not_there_is_a_sentence():
    spec, data = vowels(augment=("bank",))
    check(spec, data)
    sentence = refusal(check, spec, {"train": data["train"], "validation": data["train"]})
    assert "augment has 'bank', but data has no 'bank'" in sentence


def test_a_table_of_neighbours_that_does_not_fit_is_a_sentence():
    ids = Examples(np.ones((4, 3), np.int32), np.full(4, 3, np.int32), np.zeros(4, np.int32))
    data = {"train": ids, "validation": ids}
    spec = Spec("labelled", 3, 2, vocabulary=5, augment=("neighbours",))
    assert "augment has 'neighbours', but data has no 'neighbours'" in refusal(check, spec, data)
    table = np.ones((5, 2), np.int32)
    check(spec, data | {"neighbours": table})
    assert "has the shape (4, 2)" in refusal(check, spec, data | {"neighbours": table[1:]})
    assert "has 9 in example 0" in refusal(check, spec, data | {"neighbours": 9 * table})
