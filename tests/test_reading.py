"""Laws of how a network reads a data set: ids as one-hot vectors or embedded, pretrained vectors, dropout, padding,
both directions, classes, a prediction at every step, and a state that is carried from batch to batch."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn.backend import compiled
from seqdyn.data.check import check
from seqdyn.data.tasks import TASKS, Batch
from seqdyn.data.text import Examples
from seqdyn.learn import dropout, model, train
from seqdyn.learn.config import Hypers, Spec
from seqdyn.learn.verify import gradient_error
from seqdyn.nets.bptt import live_steps
from seqdyn.types import ConfigError

X64 = False
T, V, N = 6, 9, 10
WORDS = Spec("labelled", T, 4, vocabulary=V, embedding=3, hidden=(4,), optimizer="sgd")
SERIES = Spec("labelled", T, 4, features=2, classes=3, hidden=(4,), optimizer="sgd")
NOTES = Spec("next_step", T, 4, features=5, hidden=(4,), readout="every", optimizer="sgd")
STREAM = Spec("stream", T, 4, vocabulary=V, hidden=(4,), readout="every", optimizer="sgd")


def hypers(**changes):
    return Hypers(**changes).arrays()


def examples(spec, n=N, seed=0):
    rng = np.random.default_rng(seed)
    lengths = (1 + np.arange(n) % T).astype(np.int32)
    live = np.arange(T)[None] >= T - lengths[:, None]
    if spec.vocabulary:
        xs = np.where(live, rng.integers(1, V, (n, T)), 0).astype(np.int32)
    else:
        xs = (live[..., None] * rng.normal(size=(n, T, spec.features))).astype(np.float32)
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


def batch_of(spec, data=None, n=0):
    task, data = TASKS[spec.task](spec), data or data_of(spec)
    tickets = task.tickets(data, jax.random.key(0), jnp.arange(n, n + 1))
    return task.batch(jax.tree.map(jnp.asarray, data), "train", jax.tree.map(lambda leaf: leaf[0], tickets))


def step(spec, h, state, batch):
    with jax.numpy_dtype_promotion("standard"):
        return compiled(partial(train.step, spec))(h, state, batch)


# --- ids ----------------------------------------------------------------------------------------------------


def test_an_embedding_is_the_one_hot_vectors_times_a_matrix():
    """So a cell that reads one-hot vectors with input weights E W is the one that reads embeddings E with W."""
    bare = dataclasses.replace(WORDS, embedding=0)
    h, batch = hypers(), batch_of(WORDS)
    params = train.init(WORDS, h).params
    (layer,) = params.layers
    merged = params._replace(embedding=None, layers=(layer._replace(w=params.embedding @ layer.w),))
    shapes = jax.tree.map(jnp.shape, train.init(bare, h).params)
    assert shapes == jax.tree.map(jnp.shape, merged)
    a, b = model.predict(WORDS, h, params, batch), model.predict(bare, h, merged, batch)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


VECTORS = jnp.asarray(np.random.default_rng(3).normal(size=(V, 3)), jnp.float32)


@pytest.mark.parametrize("thaw, moves", [(0, True), (2, False), (np.inf, False)])
def test_a_pretrained_embedding_begins_as_given_and_moves_when_thawed(thaw, moves):
    spec = dataclasses.replace(WORDS, pretrained=True, optimizer="adam")
    h, data = hypers(thaw=thaw, lr=0.1), data_of(WORDS) | {"vectors": VECTORS}
    state = train.init(spec, h, data)
    np.testing.assert_array_equal(state.params.embedding, VECTORS)
    for n in range(4):
        batch = batch_of(WORDS, n=n)
        before = state.params
        state, metrics = step(spec, h, state, batch)
        moved = np.any(state.params.embedding != before.embedding)
        assert moved == (moves or n >= thaw) and np.any(state.params.readout.w != before.readout.w)
        assert metrics["group_grad_norm"][0] > 0  # the gradient that reaches it is seen, frozen or not
    frozen = float(metrics["grad_norm"]) ** 2
    parts = np.square(np.asarray(metrics["group_grad_norm"], np.float64))
    np.testing.assert_allclose(frozen, parts[1:].sum() if thaw > 3 else parts.sum(), rtol=1e-5)


# --- padding and dropout ------------------------------------------------------------------------------------


def test_padding_is_skipped_on_either_side_and_read_only_if_asked():
    h, before = hypers(), batch_of(WORDS)
    params = train.init(WORDS, h).params
    lengths = np.asarray(before.live).sum(axis=0)
    after = np.zeros_like(before.xs)
    for b, n in enumerate(lengths):
        after[:n, b] = np.asarray(before.xs)[T - n :, b]
    moved = Batch(jnp.asarray(after), before.ys, live_steps(jnp.asarray(lengths), T, "after"))
    here, there = (model.predict(WORDS, h, params, b) for b in (before, moved))
    np.testing.assert_allclose(here, there, rtol=1e-6)
    data = data_of(WORDS)
    rows = (jnp.arange(4), jnp.ones(4))
    side = TASKS["labelled"](dataclasses.replace(WORDS, pad="after")).batch(data, "test", rows)
    np.testing.assert_array_equal(side.live, live_steps(jnp.asarray(data["test"].lengths[:4]), T, "after"))
    assert TASKS["labelled"](dataclasses.replace(WORDS, mask=False)).batch(data, "test", rows).live is None


DROPPED = dataclasses.replace(WORDS, dropout="inputs", hidden=(4, 3), batch=N)


def test_dropout_at_rate_0_is_none_bit_for_bit_and_off_in_evaluation():
    data, plain = data_of(WORDS), dataclasses.replace(DROPPED, dropout="none")

    def trained(spec, h):
        with jax.numpy_dtype_promotion("standard"):
            state, _ = compiled(partial(train.chunk, spec), static_argnums=3)(h, train.init(spec, h), data, 3)
        return state, compiled(partial(train.evaluate, spec))(h, state, data)

    without, with_0 = trained(plain, hypers()), trained(DROPPED, hypers())
    for a, b in zip(jax.tree.leaves(without), jax.tree.leaves(with_0), strict=True):
        np.testing.assert_array_equal(a, b)
    h, start = hypers(dropout=0.5), train.init(plain, hypers())
    held = [compiled(partial(train.evaluate, s))(h, start, data)["test_loss"] for s in (plain, DROPPED)]
    assert held[0] == held[1]
    assert trained(DROPPED, h)[1]["test_loss"] != with_0[1]["test_loss"]


def test_a_mask_is_one_for_all_steps_of_a_sequence_new_at_each_update_and_keeps_the_mean():
    batch = batch_of(DROPPED)._replace(noise=jax.random.key(0))
    masks = dropout.draw(DROPPED, hypers(dropout=0.25), batch.noise, None, (T, N, 3)).inputs
    assert [m.shape for m in masks] == [(N, 3), (N, 4)]
    values = np.concatenate([np.ravel(m) for m in masks])
    np.testing.assert_allclose(np.unique(values), [0, 1 / 0.75], rtol=1e-6)
    wide = dataclasses.replace(DROPPED, hidden=(400,))
    many = dropout.draw(wide, hypers(dropout=0.25), batch.noise, None, (T, N, 4000)).inputs[0]
    np.testing.assert_allclose(np.mean(many), 1, atol=4 * (1 / 3 / many.size) ** 0.5)
    keys = [
        train.drawn(DROPPED, hypers(), data_of(WORDS), (jnp.arange(4), jnp.ones(4)), jnp.int32(n)).noise for n in (0, 1)
    ]
    assert not np.array_equal(*(jax.random.key_data(k) for k in keys))


def test_a_masked_network_is_the_network_on_masked_inputs():
    """Layer 0 sees x times its mask at every step; its gradient is autodiff's."""
    h = hypers(dropout=0.5)
    batch = batch_of(DROPPED)._replace(noise=jax.random.key(1))
    params = train.init(DROPPED, h).params
    layers = model.run(DROPPED, h, params, batch).stacked.layers
    masks = dropout.draw(DROPPED, h, batch.noise, batch.xs, (T, N, 3)).inputs
    np.testing.assert_array_equal(layers[0].xs, params.embedding[batch.xs] * masks[0][None])
    with jax.numpy_dtype_promotion("standard"):
        assert gradient_error(DROPPED, h, data_of(WORDS)) < 1e-5


# --- outputs ------------------------------------------------------------------------------------------------


def test_the_loss_of_classes_is_minus_the_log_of_the_softmax():
    logits = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    ys = np.arange(7, dtype=np.int32) % 3
    p = np.exp(logits.astype(np.float64))
    expected = -np.log(p[np.arange(7), ys] / p.sum(axis=1))
    np.testing.assert_allclose(model.losses(SERIES, jnp.asarray(logits), jnp.asarray(ys)), expected, rtol=1e-5)
    np.testing.assert_array_equal(model.hits(SERIES, jnp.asarray(logits), jnp.asarray(ys)), logits.argmax(1) == ys)


def test_a_loss_at_every_step_is_the_mean_over_live_steps_of_all_sequences():
    h, batch = hypers(), batch_of(NOTES)
    params = train.init(NOTES, h).params
    logits = np.asarray(model.predict(NOTES, h, params, batch), np.float64)
    assert logits.shape == (T, 4, 5)
    p = 1 / (1 + np.exp(-logits))
    nll = -np.where(np.asarray(batch.ys) == 1, np.log(p), np.log(1 - p)).sum(axis=-1)
    live = np.asarray(batch.live)
    np.testing.assert_allclose(model.loss(NOTES, h, params, batch), nll[live].mean(), rtol=1e-5)
    data = data_of(NOTES)
    whole = compiled(partial(train.evaluate, NOTES))(h, train.init(NOTES, h), data)
    one = TASKS["next_step"](NOTES).batch(data, "test", (jnp.arange(N), jnp.ones(N)))
    np.testing.assert_allclose(whole["test_loss"], model.loss(NOTES, h, params, one), rtol=1e-5)
    assert set(whole) == {"validation_loss", "test_loss"}


WAYS = [
    (WORDS, dict(cell="dense_per_position", readout="sum")),
    (WORDS, dict(bidirectional=True)),
    (SERIES, dict(bidirectional=True, cell="lstm", readout="mean")),
    (SERIES, dict(cell="dense")),
    (NOTES, dict(cell="lstm")),
    (STREAM, dict(cell="gru")),
]


@pytest.mark.parametrize("spec, change", WAYS, ids=[f"{s.task} {c}" for s, c in WAYS])
def test_every_way_to_read_trains_on_the_gradient_of_autodiff(spec, change):
    spec = dataclasses.replace(spec, hidden=(4, 3), **change)
    h, data = hypers(lr=0.1), jax.tree.map(jnp.asarray, data_of(spec))
    check(spec, data_of(spec))
    with jax.numpy_dtype_promotion("standard"):
        assert gradient_error(spec, h, data) < 1e-5
        run = compiled(partial(train.chunk, spec), static_argnums=3)
        state, metrics = run(h, train.init(spec, h), data, 4)
    assert np.all(metrics["finite"]) and metrics["adjoint_norm"].shape == (4, len(spec.widths), T)
    assert np.any(state.params.readout.w != train.init(spec, h).params.readout.w)


def test_a_backward_layers_records_count_lags_from_the_last_step_it_reads():
    """Read out at its end alone, what reaches it at lag 0 has not travelled, whichever way it reads."""
    spec = dataclasses.replace(SERIES, bidirectional=True, batch=N)
    state, batch = train.init(spec, hypers()), batch_of(spec)
    metrics = step(spec, hypers(), state, batch)[1]
    assert metrics["adjoint_norm"].shape == (2, T)
    np.testing.assert_array_equal(metrics["carried_norm"][:, -1], [0, 0])
    assert np.all(metrics["adjoint_norm"][:, -1] > 0) and np.all(metrics["carried_norm"][:, -2] > 0)
    # The reading of the backward layer is that of a forward layer on the sequences turned round.
    params, (forward, back) = state.params, state.params.layers
    flipped = batch._replace(xs=jnp.flip(batch.xs, 0), live=jnp.flip(batch.live, 0))
    half = params.readout.w[:4], params.readout.w[4:]
    swapped = params._replace(layers=(back, forward), readout=params.readout._replace(w=jnp.concatenate(half[::-1])))
    other = step(spec, hypers(), state._replace(params=swapped), flipped)[1]
    np.testing.assert_allclose(metrics["adjoint_norm"], other["adjoint_norm"][::-1], rtol=1e-5)


# --- a state that is carried --------------------------------------------------------------------------------


def test_a_streams_windows_follow_each_other_and_their_targets_are_the_next_symbols():
    data = data_of(STREAM)
    apart, per_epoch = 119 // 4, 119 // 4 // T
    task = TASKS["stream"](STREAM)
    tickets = task.tickets(data, jax.random.key(0), jnp.arange(2 * per_epoch))
    np.testing.assert_array_equal(tickets, np.tile(np.arange(per_epoch), 2))
    batches = [task.batch(jax.tree.map(jnp.asarray, data), "train", t) for t in tickets[:per_epoch]]
    read = np.concatenate([b.xs for b in batches])
    for lane in range(4):
        np.testing.assert_array_equal(read[:, lane], data["train"][lane * apart :][: per_epoch * T])
    np.testing.assert_array_equal(np.concatenate([b.ys for b in batches])[:-1], read[1:])
    assert [bool(b.fresh) for b in batches] == [True] + [False] * (per_epoch - 1)


def test_a_state_carried_over_windows_reads_as_one_long_sequence():
    data, h = jax.tree.map(jnp.asarray, data_of(STREAM)), hypers(lr=0.0)
    state = train.init(STREAM, h)
    long = dataclasses.replace(STREAM, steps=2 * T)
    whole = model.judge(long, h, state.params, batch_of(long, data_of(STREAM)))
    with jax.numpy_dtype_promotion("standard"):
        run = compiled(partial(train.chunk, STREAM), static_argnums=3)
        state, metrics = run(h, state, data, 2)
    np.testing.assert_allclose(np.mean(metrics["loss"]), whole.loss, rtol=1e-6)
    np.testing.assert_allclose(state.carries[0].h, whole.last[0].h, rtol=1e-5)


def test_a_stream_begins_at_rest_again_with_every_epoch():
    data, h = jax.tree.map(jnp.asarray, data_of(STREAM)), hypers(lr=0.0)
    per_epoch = 119 // 4 // T
    with jax.numpy_dtype_promotion("standard"):
        run = compiled(partial(train.chunk, STREAM), static_argnums=3)
        losses = run(h, train.init(STREAM, h), data, 2 * per_epoch)[1]["loss"]
    np.testing.assert_array_equal(losses[:per_epoch], losses[per_epoch:])
    assert len(set(np.asarray(losses[:per_epoch]))) == per_epoch


def test_a_streams_evaluation_carries_the_state_through_the_whole_split():
    data, h = jax.tree.map(jnp.asarray, data_of(STREAM)), hypers()
    state = train.init(STREAM, h)
    got = compiled(partial(train.evaluate, STREAM))(h, state, data)
    windows = 59 // 4 // T
    long = dataclasses.replace(STREAM, steps=windows * T)
    batch = TASKS["stream"](long).batch(data, "validation", 0)
    whole = model.judge(long, h, state.params, batch)
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
