"""Laws of `seqdyn.data.tasks`: what a batch holds, and that the data of update n is a function of (key, n)."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _training import start

from seqdyn.backend import compiled
from seqdyn.data import losses
from seqdyn.data.tasks import TASKS
from seqdyn.data.text import Examples
from seqdyn.learn import train
from seqdyn.learn.config import Spec, grid
from seqdyn.types import ConfigError

X64 = False
ADDING = Spec(steps=9, batch=8, holdout=20)
TEXT = Spec(task="labelled", steps=6, batch=4, vocabulary=50, embedding=3)
SIZES = {"train": 15, "validation": 10, "test": 8}


@pytest.fixture(scope="module")
def data():
    """Example i of a split reads i + 1 throughout, so a batch tells which examples it holds; lengths 1 … 6."""

    def examples(n):
        lengths = (1 + np.arange(n) % TEXT.steps).astype(np.int32)
        mask = np.arange(TEXT.steps)[None] >= TEXT.steps - lengths[:, None]
        ids = np.where(mask, np.arange(n)[:, None] + 1, 0).astype(np.int32)
        return Examples(ids, lengths, (np.arange(n) % 2).astype(np.int32))

    return {split: jax.tree.map(jnp.asarray, examples(n)) for split, n in SIZES.items()}


@cache
def _sample(spec, split):
    task = TASKS[spec.task](spec)
    return compiled(lambda data, ticket: task.batch(data, split, ticket))


def sample(spec, ticket, split="train", data=None):
    return _sample(spec, split)(data, ticket)


@cache
def _tickets(spec):
    return compiled(TASKS[spec.task](spec).batch_indices)


def batch_indices(spec, data, key, steps):
    return _tickets(spec)(data, key, jnp.asarray(steps, jnp.int32))


def diagnostic(spec, data, key, split, n):
    return compiled(lambda data, key: TASKS[spec.task](spec).diagnostic(data, key, split, n))(data, key)


def raw(tree):
    """Keys as the numbers they are."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, raw(ours), raw(theirs))


def row(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


# --- adding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3, 10])
def test_adding_marks_one_step_in_each_half_and_asks_for_the_sum_of_the_two(steps, key):
    batch = sample(Spec(steps=steps, batch=200), key)
    xs, ys = np.asarray(batch.xs), np.asarray(batch.ys)
    values, marks = xs[..., 0], xs[..., 1]
    assert xs.shape == (steps, 200, 2) and batch.mask is None and batch.weight is None
    assert set(np.unique(marks)) <= {0.0, 1.0}
    np.testing.assert_array_equal(marks[: steps // 2].sum(axis=0), np.ones(200))
    np.testing.assert_array_equal(marks[steps // 2 :].sum(axis=0), np.ones(200))
    assert np.all(marks.sum(axis=1) > 0)  # every step gets its turn
    np.testing.assert_allclose(ys, (values * marks).sum(axis=0), rtol=1e-6)


@pytest.fixture(scope="module")
def many():
    return jax.tree.map(np.asarray, sample(Spec(steps=10, batch=20_000), jax.random.key(0)))


def test_adding_has_values_uniform_between_0_and_1_and_independent_of_the_marks(many):
    values, marks = many.xs[..., 0], many.xs[..., 1].astype(bool)
    assert values.min() >= 0 and values.max() < 1
    np.testing.assert_allclose([values.mean(), values.var()], [1 / 2, 1 / 12], rtol=0.01)
    np.testing.assert_allclose([values[marks].mean(), values[marks].var()], [1 / 2, 1 / 12], rtol=0.02)
    np.testing.assert_allclose(marks.mean(axis=1), np.full(10, 1 / 5), rtol=0.05)


def test_chance_of_adding_is_the_error_of_predicting_the_mean(many):
    error = lambda c: np.mean((many.ys - c) ** 2)  # noqa: E731
    np.testing.assert_allclose(error(1.0), TASKS["adding"](ADDING).chance, rtol=0.02)
    assert error(1.0) < min(error(0.9), error(1.1))


def test_chance_of_text_is_the_loss_of_a_coin():
    np.testing.assert_allclose(TASKS["labelled"](TEXT).chance, -np.log(0.5))


def test_adding_batch_depends_on_key_and_update_alone(key):
    together = batch_indices(ADDING, None, key, range(5, 10))
    for i, n in enumerate(range(5, 10)):
        assert_equal(row(together, i), row(batch_indices(ADDING, None, key, [n]), 0))
    draws = [np.asarray(sample(ADDING, row(together, i)).xs) for i in range(5)]
    draws.append(np.asarray(sample(ADDING, row(batch_indices(ADDING, None, jax.random.key(1), [5]), 0)).xs))
    assert len({d.tobytes() for d in draws}) == 6


def test_adding_holdout_is_the_same_for_every_run_and_met_by_none_in_training(key):
    task = TASKS["adding"](ADDING)
    held = task.eval_batches(None, "test")
    assert len(held) * ADDING.batch == 24  # 20, rounded up to whole batches
    assert_equal(
        held, TASKS["adding"](Spec(steps=9, batch=8, holdout=24, cell="lstm", hidden=(3, 3))).eval_batches(None, "test")
    )
    drawn = [np.asarray(raw(batch_indices(ADDING, None, jax.random.key(seed), range(50)))) for seed in range(5)]
    training = {k.tobytes() for keys in drawn for k in keys}
    assert len(training) == 250 and not training & {k.tobytes() for k in np.asarray(raw(held))}
    tests = [np.asarray(sample(ADDING, held[i], "test").xs) for i in range(3)]
    assert len({t.tobytes() for t in tests}) == 3


# --- delayed XOR --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3, 9, 15])
def test_delayed_xor_asks_whether_the_bits_a_third_and_two_thirds_of_the_way_differ(steps, key):
    batch = sample(Spec(task="delayed_xor", steps=steps, batch=200), key)
    xs, ys = np.asarray(batch.xs), np.asarray(batch.ys)
    assert xs.shape == (steps, 200, 1) and batch.mask is None and batch.weight is None
    np.testing.assert_array_equal(np.abs(xs), np.ones_like(xs))
    np.testing.assert_array_equal(ys, xs[steps // 3, :, 0] * xs[2 * steps // 3, :, 0] < 0)


def test_no_single_bit_of_delayed_xor_tells_its_target_and_no_constant_beats_a_coin():
    spec = Spec(task="delayed_xor", steps=9, batch=20_000)
    batch = sample(spec, jax.random.key(0))
    xs, ys = np.asarray(batch.xs)[..., 0], np.asarray(batch.ys)
    sign = 2 * ys - 1
    assert np.abs([ys.mean() - 0.5, *(xs @ sign / len(ys)), *xs.mean(axis=1)]).max() < 0.02  # 3 deviations
    away = np.corrcoef(xs) - np.eye(9)
    assert np.abs(away).max() < 0.03
    np.testing.assert_allclose(TASKS["delayed_xor"](spec).chance, -np.log(0.5))


# --- text ---------------------------------------------------------------------------------------------------

PER_EPOCH = SIZES["train"] // TEXT.batch  # 3 batches of 4, 3 examples left out


@pytest.fixture(scope="module")
def epochs(data):
    """Rows of the first six epochs' updates, [epoch, update, example]."""
    rows, _ = batch_indices(TEXT, data, jax.random.key(0), range(6 * PER_EPOCH))
    return np.asarray(rows).reshape(6, PER_EPOCH * TEXT.batch)


def test_an_epoch_visits_every_example_once_but_for_an_incomplete_last_batch(epochs):
    for epoch in epochs:
        assert len(set(epoch)) == 12 and set(epoch) <= set(range(15))


def test_epochs_differ_in_order_and_in_what_they_leave_out(epochs):
    assert len({e.tobytes() for e in epochs}) == 6
    left_out = [set(range(15)) - set(e) for e in epochs]
    assert set().union(*left_out) > left_out[0]


def test_another_key_gives_another_order(data, epochs):
    other, _ = batch_indices(TEXT, data, jax.random.key(1), range(6 * PER_EPOCH))
    assert not np.any(np.all(np.asarray(other).reshape(epochs.shape) == epochs, axis=1))


@pytest.mark.parametrize("stretch", [1, 2, 4, 7])
def test_text_batches_do_not_depend_on_how_updates_are_cut_into_chunks(stretch, data, epochs):
    expected = epochs.reshape(-1, TEXT.batch)
    for n in range(0, 18 - stretch + 1):
        rows, _ = batch_indices(TEXT, data, jax.random.key(0), range(n, n + stretch))
        np.testing.assert_array_equal(rows, expected[n : n + stretch])


def test_a_text_batch_holds_its_tickets_examples_and_masks_their_padding(data):
    rows = np.array([7, 0, 14, 3])
    batch = sample(TEXT, (jnp.asarray(rows), None), data=data)
    train = jax.tree.map(np.asarray, data["train"])
    np.testing.assert_array_equal(batch.xs, train.xs[rows].T)
    np.testing.assert_array_equal(batch.ys, train.ys[rows])
    np.testing.assert_array_equal(batch.mask, train.xs[rows].T != 0)
    assert not np.all(batch.mask) and batch.weight is None and batch.ys.dtype == jnp.float32


def test_a_training_set_is_taken_in_order_again_and_again_and_is_the_keys_own(key):
    spec = Spec(steps=5, batch=3, training_set=6)

    def drawn(key, n):
        of = batch_indices(spec, None, key, range(5))
        return [np.asarray(sample(spec, of[i]).xs) for i in range(n)]

    xs = drawn(key, 5)
    np.testing.assert_array_equal(xs[0], xs[2])
    np.testing.assert_array_equal(xs[1], xs[3])
    assert np.any(xs[0] != xs[1]) and np.any(xs[0] != drawn(jax.random.key(1), 1)[0])
    whole = jax.tree.map(np.asarray, diagnostic(spec, None, key, "train", 6))
    np.testing.assert_array_equal(whole.xs, np.concatenate(xs[:2], axis=1))
    np.testing.assert_allclose(whole.ys, np.sum(whole.xs[..., 0] * whole.xs[..., 1], axis=0), rtol=1e-6)


def test_the_diagnostic_batch_is_the_same_for_every_run_and_met_by_none_in_training(key):
    spec = Spec(steps=5, batch=3, holdout=6)
    one, two = (jax.tree.map(np.asarray, diagnostic(spec, None, k, "holdout", 4)) for k in (key, jax.random.key(1)))
    np.testing.assert_array_equal(one.xs, two.xs)
    assert one.xs.shape == (5, 4, 2) and one.ys.shape == (4,)
    training, held = batch_indices(spec, None, key, range(20)), TASKS["adding"](spec).eval_batches(None, "test")
    met = [sample(spec, training[i]).xs for i in range(20)] + [sample(spec, held[i], "test").xs for i in range(2)]
    firsts = {float(v) for xs in met for v in np.asarray(xs)[0, :, 0]}
    assert not firsts & {float(v) for v in one.xs[0, :, 0]}


def test_the_diagnostic_batch_of_a_text_is_of_its_validation_split_padding_masked(data):
    task = TASKS["labelled"](TEXT)
    batch = jax.tree.map(np.asarray, diagnostic(TEXT, data, jax.random.key(0), "holdout", 4))
    examples = jax.tree.map(np.asarray, data["validation"])
    np.testing.assert_array_equal(batch.xs, examples.xs[:4].T)
    np.testing.assert_array_equal(batch.mask.sum(axis=0), examples.lengths[:4])
    of_train = diagnostic(TEXT, data, jax.random.key(0), "train", SIZES["train"])
    np.testing.assert_array_equal(of_train.xs, np.asarray(data["train"].xs).T)
    with pytest.raises(ConfigError, match="diagnostic is 1000; there are only"):
        task.diagnostic(data, jax.random.key(0), "holdout", 1000)


@pytest.mark.parametrize("split, batches", [("validation", 3), ("test", 2)])
def test_holdout_counts_each_example_once_and_its_filling_not_at_all(split, batches, data):
    task = TASKS["labelled"](TEXT)
    held = task.eval_batches(data, split)
    counts = np.zeros(SIZES[split])
    for i in range(batches):
        batch = sample(TEXT, row(held, i), split, data)
        examples = np.asarray(batch.xs)[-1] - 1  # every sequence's last step is valid
        np.add.at(counts, examples, np.asarray(batch.weight))
        np.testing.assert_array_equal(batch.ys, np.asarray(data[split].ys)[examples])
        assert set(np.unique(batch.weight)) <= {0.0, 1.0}
    np.testing.assert_array_equal(counts, np.ones(SIZES[split]))
    assert held[0].shape == (batches, TEXT.batch)
    assert np.sum(held[1] == 0) == batches * TEXT.batch - SIZES[split]


# --- every task ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [ADDING, TEXT], ids=["adding", "text"])
def test_what_counts_as_learned_is_a_metric_of_a_held_out_split(spec):
    task = TASKS[spec.task](spec)
    split, _, metric = task.learned[0].partition("_")
    assert (
        split in task.splits({}) + ("validation",)
        and metric in ("loss", "accuracy")
        and task.loss in (losses.mse, losses.binary)
    )
    assert task.learned[1] < task.chance if metric == "loss" else task.learned[1] > 0.5


# --- more synthetic tasks -----------------------------------------------------------------------------------


def drawn(task, steps, batch=400, **fields):
    spec = Spec(task=task, steps=steps, batch=batch, **fields)
    return jax.tree.map(np.asarray, sample(spec, jax.random.key(3)))


def test_multiplication_asks_for_the_product_of_the_two_marked():
    many = drawn("multiplication", 10, 20_000)
    values, marks = many.xs[..., 0], many.xs[..., 1] > 0
    np.testing.assert_array_equal(marks.sum(0), 2)
    np.testing.assert_allclose(many.ys, np.where(marks, values, 1).prod(0), rtol=1e-6)
    np.testing.assert_allclose(many.ys.var(), TASKS["multiplication"](ADDING).chance, rtol=0.03)


@pytest.mark.parametrize("task, windows", [("temporal_order", (1, 5)), ("temporal_order_3", (1, 3, 6))])
@pytest.mark.parametrize("steps", [10, 37])
def test_temporal_order_asks_for_the_symbols_of_its_windows_in_their_order(task, windows, steps):
    batch = drawn(task, steps)
    symbols = batch.xs.argmax(-1)
    np.testing.assert_array_equal(batch.xs.sum(-1), 1)
    special = symbols < 2
    np.testing.assert_array_equal(special.sum(0), len(windows))
    where = np.sort(np.where(special, np.arange(steps)[:, None], steps), axis=0)[: len(windows)]
    for at, w in zip(where, windows, strict=True):
        start = steps * w // 10
        assert at.min() == start and at.max() == start + steps // 10 - 1
    said = np.take_along_axis(symbols, where, axis=0)
    np.testing.assert_array_equal(batch.ys, (said * 2 ** np.arange(len(windows))[:, None]).sum(0))
    assert set(batch.ys) == set(range(2 ** len(windows))) and set(symbols[~special]) == {2, 3, 4, 5}


def test_random_permutation_asks_for_its_first_symbol_which_stands_nowhere_else():
    batch = drawn("random_permutation", 30)
    symbols = batch.xs.argmax(-1)
    np.testing.assert_array_equal(symbols[0], batch.ys)
    assert set(batch.ys) == {0, 1} and symbols[1:].min() == 2 and symbols.max() == 99


def test_parity_asks_whether_the_number_of_ones_is_odd():
    batch = drawn("parity", 9)
    np.testing.assert_array_equal(batch.ys, (batch.xs[..., 0] > 0).sum(0) % 2)


@pytest.mark.parametrize("task, symbols, count, cue", [("copy", 8, 10, 19), ("memorization", 2, 5, 25)])
def test_what_was_read_is_to_be_written_after_the_cue(task, symbols, count, cue):
    """And a network that knows all but the symbols, and guesses those, has the chance level of the task."""
    batch = drawn(task, 30, readout="every")
    read = batch.xs.argmax(-1)
    np.testing.assert_array_equal(batch.ys[-count:], read[:count])
    assert set(read[:count].ravel()) == set(range(symbols)) and (batch.ys[:-count] == symbols).all()
    np.testing.assert_array_equal(np.argwhere(read == symbols + 1)[:, 0], cue)
    rest = np.delete(read[count:], cue - count, axis=0)
    assert (rest == symbols).all()
    spec = Spec(task=task, steps=30, readout="every")
    np.testing.assert_allclose(TASKS[task](spec).chance, count * np.log(symbols) / 30)


@pytest.mark.parametrize("task", ["adding", "temporal_order", "random_permutation", "parity"])
def test_sequences_may_have_lengths_of_their_own(task):
    """Each is what its length says, then nothing; and asks what it would have asked at that length."""
    spec = dict(shortest=12)
    batch = drawn(task, 20, **spec)
    lengths = batch.mask.sum(0)
    assert set(lengths) == set(range(12, 21))
    np.testing.assert_array_equal(batch.mask, np.arange(20)[:, None] < lengths)
    assert (batch.xs[~batch.mask] == 0).all() and (np.abs(batch.xs[batch.mask]).sum(-1) > 0).all()
    if task == "adding":
        marks = batch.xs[..., 1] > 0
        t = np.arange(20)[:, None]
        np.testing.assert_array_equal((marks & (t < lengths // 2)).sum(0), 1)
        np.testing.assert_array_equal((marks & (t >= lengths // 2)).sum(0), 1)
    if task == "parity":
        np.testing.assert_array_equal(batch.ys, ((batch.xs[..., 0] > 0) & batch.mask).sum(0) % 2)
    look = diagnostic(Spec(task=task, steps=20, batch=8, **spec), None, jax.random.key(0), "holdout", 3)
    assert look.mask.shape == (20, 3) and np.asarray(look.mask).sum(0).min() >= 12


def test_lengths_say_nothing_of_what_is_drawn():
    """Lengths of 17 to 32 and symbols of 4, drawn by one key, would have the same last two bits."""
    batch = drawn("temporal_order", 32, shortest=17)
    first, lengths = batch.xs[0].argmax(-1), batch.mask.sum(0)
    for last in range(4):
        assert {*first[lengths % 4 == last].tolist()} == {2, 3, 4, 5}


@pytest.mark.parametrize(
    "spec, n",
    [
        (TEXT, 0),
        (dataclasses.replace(TEXT, augment=("delete",), dropout="words"), 7),
        (ADDING, 5),
        (dataclasses.replace(ADDING, training_set=16), 5),
    ],
    ids=["text", "changed", "fresh", "set"],
)
def test_the_batch_of_an_update_is_the_one_that_the_update_is_made_on(spec, n, data, monkeypatch):
    """What `step` is given in a chunk, caught there."""
    numbers = dict(strength=0.5) if spec.augment else {}
    spec = grid(spec, seeds=[3], **numbers).at(0)
    state = start(spec, data)
    monkeypatch.setattr(
        train, "step", lambda spec, state, batch: (state._replace(step=state.step + 1), {"batch": batch})
    )
    monkeypatch.setattr(train, "nan_like", lambda shape: jnp.zeros(shape.shape, shape.dtype))
    keyless = dataclasses.replace(spec, dropout="none").arrays()
    seen = compiled(lambda data: train.chunk(keyless, state, data, 9)[1]["batch"])(data)
    found = train.training_batch(spec, data, np.int64(n))
    assert (found.noise is None) == (spec.dropout == "none")
    assert_equal(found._replace(noise=None), row(seen, n))
    assert not np.array_equal(found.xs, train.training_batch(spec, data, n + 1).xs)
