"""Laws of `seqdyn.data.wording`: what each change of a review leaves alone, and how much of it it changes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn.backend import compiled
from seqdyn.data.batches import Batch
from seqdyn.data.text import PAD, START, UNKNOWN, Examples, pad_to
from seqdyn.data.wording import FUNCTION_WORDS, NEIGHBOURS, content, delete, insert, insert_random, neighbours, swap
from seqdyn.types import ConfigError

STEPS, VOCABULARY = 12, 60
METHODS = {"delete": delete, "swap": swap, "insert": insert, "insert_random": insert_random, "neighbours": neighbours}
COMPILED = {
    (name, pad): compiled(partial(method, pad=pad)) for name, method in METHODS.items() for pad in ("before", "after")
}
every_method = pytest.mark.parametrize("method", METHODS)
either_side = pytest.mark.parametrize("pad", ["before", "after"])
TABLE = np.arange(VOCABULARY, dtype=np.int32)[:, None] + np.int32([[0, 0]])
TABLE[20:] = 20 + (TABLE[20:] - 20 + np.int32([[1, 2]])) % 40  # ids below 20 are words without neighbours


def reviews(pad, n=64, seed=0, fewest=1, most=STEPS + 6):
    """Reviews of all lengths, in a random order of words, no word twice, those that were cut without <start>."""
    rng = np.random.default_rng(seed)
    rows = [
        [START, *rng.permutation(np.arange(UNKNOWN, VOCABULARY))[: fewest + i % (most - fewest)].tolist()]
        for i in range(n)
    ]
    xs, lengths = pad_to(rows, STEPS, pad=pad)
    return Examples(xs, lengths, np.arange(n, dtype=np.int32))


def given(pad, **more):
    """(batch, data)"""
    examples = reviews(pad, **more)
    xs = jnp.asarray(examples.xs.T)
    batch = Batch(xs, jnp.asarray(examples.ys), xs != PAD)
    return batch, {NEIGHBOURS: jnp.asarray(TABLE), "train": examples}


def words(batch):
    """The words of each review, <start> and padding left out."""
    return [[int(i) for i in row if i not in (PAD, START)] for row in np.asarray(batch.xs).T]


def is_part(short, long):
    """Is it what remains of the other when some of its words are left out?"""
    rest = iter(long)
    return all(word in rest for word in short)


@every_method
@either_side
def test_strength_0_is_the_identity_bit_for_bit(method, pad, key):
    batch, data = given(pad)
    same = COMPILED[method, pad](key, batch, 0.0, data)
    assert jax.tree.structure(same) == jax.tree.structure(batch)
    for new, old in zip(jax.tree.leaves(same), jax.tree.leaves(batch), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new, old)


@every_method
def test_a_key_decides_all(method, key):
    batch, data = given("before")
    once, again = (COMPILED[method, "before"](key, batch, 0.5, data).xs for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, COMPILED[method, "before"](jax.random.key(1), batch, 0.5, data).xs)
    assert not np.array_equal(once, batch.xs)


@every_method
@either_side
@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_labels_stay_and_padding_is_where_it_was(method, pad, strength, key):
    """Words lie side by side, against the side that has no padding, and valid steps are theirs; <start> is first."""
    batch, data = given(pad)
    new = COMPILED[method, pad](key, batch, strength, data)
    np.testing.assert_array_equal(new.ys, batch.ys)
    np.testing.assert_array_equal(new.mask, new.xs != PAD)
    mask = np.asarray(new.mask)
    lengths = mask.sum(axis=0)
    steps = np.arange(STEPS)[:, None]
    np.testing.assert_array_equal(mask, steps >= STEPS - lengths if pad == "before" else steps < lengths)
    assert all(words(new)), "a review is never without a word"
    if method in ("swap", "neighbours"):
        np.testing.assert_array_equal(mask, batch.mask)
    for now, then in zip(np.asarray(new.xs).T, np.asarray(batch.xs).T, strict=True):
        begins = now[now != PAD][0] == START
        assert np.count_nonzero(now == START) == begins
        assert begins == (START in then) or (method.startswith("insert") and now[0] != PAD)  # or it had no more room


@either_side
def test_padding_that_is_read_stays_out_of_it(pad, key):
    batch, data = given(pad)
    new = COMPILED["delete", pad](key, batch._replace(mask=None), 0.5, data)
    assert new.mask is None
    np.testing.assert_array_equal(new.xs, COMPILED["delete", pad](key, batch, 0.5, data).xs)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_deletion_leaves_a_part_of_the_review_in_its_order(strength, key):
    batch, data = given("before")
    new = COMPILED["delete", "before"](key, batch, strength, data)
    assert all(is_part(now, then) for now, then in zip(words(new), words(batch), strict=True))
    if strength == 1:
        assert all(len(now) == 1 for now in words(new))
        kept = [words(COMPILED["delete", "before"](jax.random.key(i), batch, 1.0, data))[9][0] for i in range(20)]
        assert len(set(kept)) > 4  # of ten words


@either_side
def test_random_insertion_draws_every_training_word_behind_words_of_the_review(pad, key):
    train = reviews(pad, n=40, seed=1)
    words_of_train = {int(i) for i in np.unique(train.xs)} - {PAD, START}
    batch, data = given(pad, n=1000, fewest=3, most=5)
    new = COMPILED["insert_random", pad](key, batch, 0.5, data | {"train": train})
    both = list(zip(words(new), words(batch), strict=True))
    assert all(is_part(then, now) and now[0] == then[0] for now, then in both)
    added = [set(now) - set(then) for now, then in both]
    assert set.union(*added) == words_of_train
    with pytest.raises(ConfigError, match="'insert_random', but data has no 'train'"):
        insert_random(key, batch, 0.5, {})


def test_a_swap_keeps_the_bag_of_words_and_changes_places_in_pairs(key):
    batch, data = given("after")
    new = COMPILED["swap", "after"](key, batch, 0.5, data)
    for now, then in zip(words(new), words(batch), strict=True):
        assert sorted(now) == sorted(then)
        for i in range(len(then)):
            assert now[then.index(now[i])] == then[i]
    both = COMPILED["swap", "after"](key, batch, 1.0, data)
    moved = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in zip(words(both), words(batch), strict=True)]
    assert moved == [len(then) // 2 * 2 for then in words(batch)]


@either_side
def test_insertion_adds_neighbours_of_the_reviews_own_words_and_drops_the_first_that_have_no_room(pad, key):
    batch, data = given(pad)
    new = COMPILED["insert", pad](key, batch, 0.4, data)
    for now, then in zip(words(new), words(batch), strict=True):
        fresh = set(now) - set(then)
        assert fresh <= {int(i) for word in then if word >= 20 for i in TABLE[word]}
        assert len(now) >= len(then)
        lost = next(k for k in range(len(then) + 1) if is_part(then[k:], now))
        assert not lost or len(now) == STEPS
        assert lost <= max(0, len(then) + len(then) - STEPS)
    none = jnp.where(batch.xs > START, batch.xs % 17 + 3, batch.xs)  # words without neighbours alone
    same = COMPILED["insert", pad](key, batch._replace(xs=none), 1.0, data)
    np.testing.assert_array_equal(same.xs, none)


def test_words_are_replaced_by_their_neighbours_all_equally_often(key):
    xs = jnp.full((STEPS, 500), 30, jnp.int32).at[0].set(5)
    batch, data = Batch(xs, jnp.zeros(500), xs != PAD), given("before")[1]
    new = np.asarray(COMPILED["neighbours", "before"](key, batch, 1.0, data).xs)
    assert np.all(new[0] == 5)
    ids, counts = np.unique(new[1:], return_counts=True)
    assert ids.tolist() == TABLE[30].tolist() == [31, 32]
    assert abs(counts[0] - counts.sum() / 2) < 5 * counts.sum() ** 0.5 / 2


@every_method
@pytest.mark.parametrize("strength", [0.1, 0.4])
def test_strength_is_the_share_of_words_that_change(method, strength, key):
    """Of swaps, less the one that is left over where the number of chosen words is odd."""
    most = STEPS // 2 if method.startswith("insert") else STEPS
    batch, data = given("before", n=8000, fewest=most - 1, most=most)
    if method == "neighbours":
        batch = batch._replace(xs=jnp.where(batch.xs > START, batch.xs % 40 + 20, batch.xs))
    new = COMPILED[method, "before"](key, batch, strength, data)
    n = np.mean([len(then) for then in words(batch)])
    if method in ("delete", "insert", "insert_random"):
        changed = np.mean([abs(len(now) - len(then)) for now, then in zip(words(new), words(batch), strict=True)]) / n
    else:
        changed = np.mean(np.asarray(new.xs != batch.xs).sum(axis=0)) / n
    # P(odd) of Binomial(n, p) is (1 − (1 − 2p)ⁿ) / 2, and then one word stays.
    expected = strength - (1 - (1 - 2 * strength) ** n) / 2 / n * (method == "swap")
    np.testing.assert_allclose(changed, expected, rtol=0.06)


@every_method
def test_runs_of_a_grid_have_strengths_of_their_own(method, key):
    batch, data = given("before")
    strengths = compiled(jax.vmap(METHODS[method], in_axes=(None, None, 0, None)))
    both = strengths(key, batch, jnp.float32([0, 0.5]), data)
    np.testing.assert_array_equal(both.xs[0], batch.xs)
    np.testing.assert_array_equal(both.xs[1], COMPILED[method, "before"](key, batch, 0.5, data).xs)


@pytest.mark.parametrize("method", ["insert", "neighbours"])
def test_without_a_table_of_neighbours_one_is_asked_for(method, key):
    batch = given("before", n=2)[0]
    with pytest.raises(ConfigError, match=f"'{method}', but data has no 'neighbours'"):
        METHODS[method](key, batch, 0.5, {})


def test_negations_and_words_of_grammar_carry_no_content():
    assert {"not", "no", "never", "nothing", "the", "it"} <= FUNCTION_WORDS
    assert not {"good", "bad", "great", "film", "worst", "love"} & FUNCTION_WORDS
    assert content(("<unk>", "don't", "not", "good", "film")).tolist() == [False, False, False, True, True]
