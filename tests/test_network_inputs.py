"""Laws of how a network reads a data set: ids as one-hot vectors or embedded, pretrained vectors, padding, both
directions, classes, a prediction at every step, and a state that is carried from batch to batch."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _training import assert_descends, evaluated, having, start, update

from seqdyn.backend import compiled
from seqdyn.data.check import check
from seqdyn.data.tasks import TASKS, Batch
from seqdyn.data.text import Examples
from seqdyn.learn import model, train
from seqdyn.learn.config import Spec
from seqdyn.nets.bptt import valid_steps
from seqdyn.numbers import Numbers
from seqdyn.types import ConfigError

X64 = False
T, V, N = 6, 9, 10
WORDS = Spec("labelled", T, 4, vocabulary=V, embedding=3, hidden=(4,), optimizer="sgd")
SERIES = Spec("labelled", T, 4, features=2, classes=3, hidden=(4,), optimizer="sgd")
NOTES = Spec("next_step", T, 4, features=5, hidden=(4,), readout="every", optimizer="sgd")
STREAM = Spec("stream", T, 4, vocabulary=V, hidden=(4,), readout="every", optimizer="sgd")


def numbers(**changes):
    return Numbers(**changes).arrays()


def examples(spec, n=N, seed=0):
    rng = np.random.default_rng(seed)
    lengths = (1 + np.arange(n) % T).astype(np.int32)
    mask = np.arange(T)[None] >= T - lengths[:, None]
    if spec.vocabulary:
        xs = np.where(mask, rng.integers(1, V, (n, T)), 0).astype(np.int32)
    else:
        xs = (mask[..., None] * rng.normal(size=(n, T, spec.features))).astype(np.float32)
    ys = rng.integers(0, max(spec.classes, 2), n).astype(np.int32)
    if spec.task == "next_step":
        ys = rng.integers(0, 2, (n, T, spec.features)).astype(np.float32)
    return Examples(xs, lengths, ys)


def data_of(spec):
    if spec.task == "stream":
        rng = np.random.default_rng(0)
        return {name: rng.integers(0, V, n).astype(np.int32) for name, n in [("train", 120), ("validation", 60)]}
    return {
        name: jax.tree.map(jnp.asarray, examples(spec, seed=i))
        for i, name in enumerate(["train", "validation", "test"])
    }


def batch_of(spec, n=0):
    """The batch of update n."""
    return drawing(spec)(data_of(spec), np.int32(n))


@cache
def drawing(spec):
    def batch(data, n):
        return TASKS[spec.task](spec).batch(data, "train", train.batch_index(having(spec, numbers()), data, n))

    return compiled(batch)


@cache
def judge(spec):
    """(predictions, loss) of a batch, compiled."""

    def both(params, batch):
        output = model.run(having(spec, numbers()), params, batch)
        return output.predictions, model.metrics(spec, output, batch).loss

    return compiled(both)


# --- ids ----------------------------------------------------------------------------------------------------


def test_an_embedding_is_the_one_hot_vectors_times_a_matrix():
    """So a cell that reads one-hot vectors with input weights E W is the one that reads embeddings E with W."""
    bare = dataclasses.replace(WORDS, embedding=0)
    batch, params = batch_of(WORDS), start(WORDS).params
    (layer,) = params.layers
    product = np.asarray(params.embedding, np.float64) @ np.asarray(layer.w, np.float64)
    merged = params._replace(embedding=None, layers=(layer._replace(w=jnp.float32(product)),))
    assert jax.tree.map(jnp.shape, start(bare).params) == jax.tree.map(jnp.shape, merged)
    a, b = judge(WORDS)(params, batch)[0], judge(bare)(merged, batch)[0]
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


VECTORS = jnp.asarray(np.random.default_rng(3).normal(size=(V, 3)), jnp.float32)


PRETRAINED = dataclasses.replace(WORDS, pretrained=True, optimizer="adam")


def test_a_pretrained_embedding_begins_as_given():
    state = compiled(lambda data: train.init(having(PRETRAINED, numbers()), data))({"vectors": VECTORS})
    np.testing.assert_array_equal(state.params.embedding, VECTORS)


@pytest.mark.parametrize("thaw, moves", [(0, True), (2, False), (np.inf, False)])
def test_a_pretrained_embedding_moves_when_thawed(thaw, moves):
    h, data = numbers(thaw=thaw, lr=0.1), data_of(WORDS) | {"vectors": VECTORS}
    state = start(PRETRAINED, data)
    for n in range(4):
        before = state.params
        state, metrics, _ = update(PRETRAINED, h, state, data)
        moved = np.any(state.params.embedding != before.embedding)
        assert moved == (moves or n >= thaw) and np.any(state.params.readout.w != before.readout.w)
        assert metrics["group_grad_norm"][0] > 0  # the gradient that reaches it is seen, frozen or not
    frozen = float(metrics["grad_norm"]) ** 2
    parts = np.square(np.asarray(metrics["group_grad_norm"], np.float64))
    np.testing.assert_allclose(frozen, parts[1:].sum() if thaw > 3 else parts.sum(), rtol=1e-5)


# --- padding ----------------------------------------------------------------------------------------------


def test_padding_is_skipped_on_either_side_and_read_only_if_asked():
    before, params = batch_of(WORDS), start(WORDS).params
    lengths = np.asarray(before.mask).sum(axis=0)
    after = np.zeros_like(before.xs)
    for b, n in enumerate(lengths):
        after[:n, b] = np.asarray(before.xs)[T - n :, b]
    moved = Batch(jnp.asarray(after), before.ys, valid_steps(jnp.asarray(lengths), T, "after"))
    here, there = (judge(WORDS)(params, b)[0] for b in (before, moved))
    np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-6)
    data = data_of(WORDS)
    rows = (jnp.arange(4), jnp.ones(4))
    side = TASKS["labelled"](dataclasses.replace(WORDS, pad="after")).batch(data, "test", rows)
    np.testing.assert_array_equal(side.mask, valid_steps(jnp.asarray(data["test"].lengths[:4]), T, "after"))
    assert TASKS["labelled"](dataclasses.replace(WORDS, mask=False)).batch(data, "test", rows).mask is None


# --- outputs ------------------------------------------------------------------------------------------------


def test_the_loss_of_classes_is_minus_the_log_of_the_softmax():
    logits = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    ys = np.arange(7, dtype=np.int32) % 3
    p = np.exp(logits.astype(np.float64))
    expected = -np.log(p[np.arange(7), ys] / p.sum(axis=1))
    losses, hits = compiled(lambda *a: (model.losses(SERIES, *a), model.is_correct(SERIES, *a)))(logits, ys)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(hits, logits.argmax(1) == ys)


def test_a_loss_at_every_step_is_the_mean_over_live_steps_of_all_sequences():
    batch, state = batch_of(NOTES), start(NOTES)
    logits, loss = judge(NOTES)(state.params, batch)
    logits = np.asarray(logits, np.float64)
    assert logits.shape == (T, 4, 5)
    p = 1 / (1 + np.exp(-logits))
    nll = -np.where(np.asarray(batch.ys) == 1, np.log(p), np.log(1 - p)).sum(axis=-1)
    mask = np.asarray(batch.mask)
    np.testing.assert_allclose(loss, nll[mask].mean(), rtol=1e-5)
    data = data_of(NOTES)
    whole = evaluated(NOTES, numbers(), state, data)
    one = TASKS["next_step"](NOTES).batch(data, "test", (jnp.arange(N), jnp.ones(N)))
    np.testing.assert_allclose(whole["test_loss"], judge(NOTES)(state.params, one)[1], rtol=1e-5)
    assert set(whole) == {"validation_loss", "test_loss"}


WAYS = [
    (WORDS, dict(bidirectional=True)),
    (SERIES, dict(cell="dense")),
    (STREAM, dict(cell="gru")),
]
MORE = [
    (WORDS, dict(cell="dense_per_position", readout="sum")),
    (SERIES, dict(bidirectional=True, cell="lstm", readout="mean", hidden=(4,))),
    (NOTES, dict(cell="lstm", hidden=(4,))),
]


@pytest.mark.parametrize(
    "spec, change",
    [pytest.param(s, c, id=f"{s.task} {c}", marks=pytest.mark.slow if (s, c) in MORE else ()) for s, c in WAYS + MORE],
)
def test_every_way_to_read_trains_on_the_gradient_of_autodiff(spec, change):
    spec = dataclasses.replace(spec, **{"hidden": (4, 3)} | change)
    data = data_of(spec)
    check(spec, data)
    _, found = assert_descends(spec, jax.tree.map(jnp.asarray, data))
    assert found.metrics["adjoint_norm"].shape == (len(spec.widths), T)


def test_a_backward_layers_records_count_lags_from_the_last_step_it_reads():
    """Read out at its end alone, what reaches it at lag 0 came from no next step, whichever way it reads."""
    spec = dataclasses.replace(SERIES, bidirectional=True, batch=N)
    state, batch = start(spec), batch_of(spec)
    step = compiled(lambda state, batch: train.step(having(spec, numbers()), state, batch)[1])
    metrics = step(state, batch)
    assert metrics["adjoint_norm"].shape == (2, T)
    np.testing.assert_array_equal(metrics["carried_norm"][:, -1], [0, 0])
    assert np.all(metrics["adjoint_norm"][:, -1] > 0) and np.all(metrics["carried_norm"][:, -2] > 0)
    # The reading of the backward layer is that of a forward layer on the sequences turned round.
    params, (forward, back) = state.params, state.params.layers
    flipped = batch._replace(xs=jnp.flip(batch.xs, 0), mask=jnp.flip(batch.mask, 0))
    half = params.readout.w[:4], params.readout.w[4:]
    swapped = params._replace(layers=(back, forward), readout=params.readout._replace(w=jnp.concatenate(half[::-1])))
    other = step(state._replace(params=swapped), flipped)
    np.testing.assert_allclose(metrics["adjoint_norm"], other["adjoint_norm"][::-1], rtol=1e-5)


# --- a state that is carried --------------------------------------------------------------------------------


def test_a_streams_windows_follow_each_other_and_their_targets_are_the_next_symbols():
    data = data_of(STREAM)
    apart, per_epoch = 119 // 4, 119 // 4 // T
    task = TASKS["stream"](STREAM)
    indices = task.batch_indices(data, jax.random.key(0), jnp.arange(2 * per_epoch))
    np.testing.assert_array_equal(indices, np.tile(np.arange(per_epoch), 2))
    batches = [task.batch(jax.tree.map(jnp.asarray, data), "train", t) for t in indices[:per_epoch]]
    read = np.concatenate([b.xs for b in batches])
    for lane in range(4):
        np.testing.assert_array_equal(read[:, lane], data["train"][lane * apart :][: per_epoch * T])
    np.testing.assert_array_equal(np.concatenate([b.ys for b in batches])[:-1], read[1:])
    assert [bool(b.fresh) for b in batches] == [True] + [False] * (per_epoch - 1)


@pytest.fixture(scope="module")
def streamed():
    """(losses of two epochs of updates that change nothing, the state after them, what the second should be as one
    long sequence, the evaluation, and what that should be)"""
    data = jax.tree.map(jnp.asarray, data_of(STREAM))
    epoch, held = (dataclasses.replace(STREAM, steps=n // 4 // T * T) for n in (119, 59))

    def all_of_it(h, state):
        after, metrics = train.chunk(having(STREAM, h), state, data, 2 * (epoch.steps // T))
        whole = model.forward(having(epoch, h), state.params, TASKS["stream"](epoch).batch(data, "train", 0))
        found = train.evaluate(having(STREAM, h), state, data)
        judged = model.forward(having(held, h), state.params, TASKS["stream"](held).batch(data, "validation", 0))
        return metrics["loss"], after, whole._replace(path=()), found, judged._replace(path=())

    with jax.numpy_dtype_promotion("standard"):
        return compiled(all_of_it)(numbers(lr=0.0), start(STREAM, data))


def test_a_state_carried_over_windows_reads_as_one_long_sequence(streamed):
    losses, state, whole, _, _ = streamed
    np.testing.assert_allclose(np.mean(losses[len(losses) // 2 :]), whole.loss, rtol=1e-5)
    np.testing.assert_allclose(state.carries[0].h, whole.last[0].h, rtol=1e-4, atol=1e-6)


def test_a_stream_begins_at_rest_again_with_every_epoch(streamed):
    first, second = np.split(np.asarray(streamed[0]), 2)
    np.testing.assert_array_equal(first, second)
    assert len(set(first)) == len(first) == 4


def test_a_streams_evaluation_carries_the_state_through_the_whole_split(streamed):
    _, _, _, got, whole = streamed
    np.testing.assert_allclose(got["validation_loss"], whole.loss, rtol=1e-5)
    np.testing.assert_allclose(got["validation_accuracy"], whole.accuracy, rtol=1e-5)


# --- data that does not fit ---------------------------------------------------------------------------------


def spoilt(spec, field, where, value):
    data = data_of(spec)
    array = np.array(getattr(data["validation"], field))
    array[where] = value
    return data | {"validation": data["validation"]._replace(**{field: array})}


WRONG = [
    (WORDS, None, ["NoneType", "labelled", "dict"]),
    (WORDS, {"train": examples(WORDS)}, ["train", "must have validation"]),
    (WORDS, data_of(WORDS) | {"dev": examples(WORDS)}, ["dev", "validation, test, shuffled"]),
    (WORDS, data_of(WORDS) | {"test": examples(WORDS, 0)}, ["test", "empty"]),
    (WORDS, spoilt(WORDS, "xs", (2, 5), V), ["xs", "validation", "9", "example 2", "between 0 and 8"]),
    (WORDS, spoilt(WORDS, "lengths", 3, 0), ["lengths", "validation", "0", "example 3", "between 1 and steps, 6"]),
    (WORDS, spoilt(WORDS, "lengths", 3, 7), ["lengths", "7", "example 3"]),
    (WORDS, spoilt(WORDS, "ys", 1, 2), ["ys", "validation", "2", "example 1", "between 0 and 1"]),
    (WORDS, spoilt(WORDS, "ys", 1, -1), ["ys", "-1", "example 1"]),
    (SERIES, spoilt(SERIES, "xs", (4, 0, 1), np.nan), ["xs", "nan", "example 4", "finite"]),
    (SERIES, data_of(WORDS), ["xs", "train", "(10, 6)", "(10, 6, 2)"]),
    (WORDS, data_of(SERIES), ["xs", "train", "(10, 6, 2)", "(10, 6)"]),
    (dataclasses.replace(WORDS, steps=5), data_of(WORDS), ["xs", "(10, 6)", "(10, 5)"]),
    (NOTES, spoilt(NOTES, "ys", (0, 0, 0), 0.5), ["ys", "0.5", "example 0", "0 or 1"]),
    (STREAM, data_of(STREAM) | {"validation": np.full(60, V)}, ["validation", "9", "between 0 and 8"]),
    (STREAM, data_of(STREAM) | {"validation": np.ones(60)}, ["validation", "float64", "whole numbers"]),
    (dataclasses.replace(WORDS, pretrained=True), data_of(WORDS), ["vectors", "missing", "(9, 3)"]),
    (
        dataclasses.replace(WORDS, pretrained=True),
        data_of(WORDS) | {"vectors": np.zeros((V, 2), np.float32)},
        ["vectors", "(9, 2)", "(9, 3)"],
    ),
]


@pytest.mark.parametrize("spec, data, words", WRONG, ids=lambda v: v[0] if isinstance(v, list) else None)
def test_data_that_does_not_fit_is_named_with_its_place_and_what_is_right(spec, data, words):
    with pytest.raises(ConfigError) as error:
        check(spec, data)
    text = str(error.value)
    assert all(word in text for word in words), text
    assert text.endswith(".") and "\n" not in text
