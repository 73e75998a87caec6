"""Laws of `seqdyn.learn.model`: stacks, readouts and losses against loops over `cells.step` and textbook formulas."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refusals import refusal
from _training import having, over

from seqdyn.backend import compiled
from seqdyn.data.tasks import TASKS, Batch
from seqdyn.learn import model
from seqdyn.learn.config import Spec
from seqdyn.nets import cells
from seqdyn.nets.bptt import valid_steps
from seqdyn.nets.stack import unroll_autodiff
from seqdyn.numbers import Numbers

X64 = False
STEPS, VOCABULARY = 6, 11
LENGTHS = np.array([6, 1, 4, 3])
ADDING = Spec(steps=STEPS, batch=4, hidden=(5,))
TEXT = Spec(task="labelled", steps=STEPS, batch=4, vocabulary=VOCABULARY, embedding=3, hidden=(5, 4), cell="lstm")
every_cell = pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "gru_reset_before"])


def numbers(**changes):
    return Numbers(**changes).arrays()


def trained(spec, seed=0):
    """Parameters with every bias away from zero."""
    shapes = jax.eval_shape(lambda: model.init(having(spec, numbers()), jax.random.key(0)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.7 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def text_batch(padding=0):
    ids = np.random.default_rng(1).integers(1, VOCABULARY, (STEPS, 4))
    mask = np.asarray(valid_steps(jnp.asarray(LENGTHS), STEPS, "before"))
    ids = np.where(mask, ids, padding).astype(np.int32)
    return Batch(jnp.asarray(ids), jnp.asarray([0.0, 1.0, 1.0, 0.0]), jnp.asarray(mask))


def adding_batch():
    rng = np.random.default_rng(2)
    return Batch(jnp.asarray(rng.normal(size=(STEPS, 4, 2)), jnp.float32), jnp.asarray(rng.normal(size=4), jnp.float32))


@cache
def _steps(spec):
    return [
        (compiled(partial(cells.step, cell)), cell.initial_carry(())) for cell in model.layers(having(spec, numbers()))
    ]


def by_hand(spec, params, xs):
    """The prediction of one sequence xs [t, d], alone: a Python loop over steps and layers."""
    stack = _steps(dataclasses.replace(spec, readout="last"))
    carries, tops = [rest for _, rest in stack], []
    for x in np.asarray(xs):
        for i, ((step, _), p) in enumerate(zip(stack, params.layers, strict=True)):
            carries[i] = step(p, carries[i], x)
            x = carries[i].h
        tops.append(np.asarray(x, np.float64))
    read = {"last": tops[-1], "mean": np.mean(tops, axis=0), "sum": np.sum(tops, axis=0)}[spec.readout]
    return (read @ np.asarray(params.readout.w) + np.asarray(params.readout.b))[0]


# --- predictions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", ["last", "mean", "sum"])
def test_a_padded_batch_predicts_what_each_sequence_alone_does(readout):
    spec = dataclasses.replace(TEXT, readout=readout)
    params, batch = trained(spec), text_batch()
    predict = compiled(over(model.predict, spec))
    got = predict(numbers(), params, batch)[:, 0]
    embedding, ids = np.asarray(params.embedding), np.asarray(batch.xs)
    alone = [by_hand(spec, params, jnp.asarray(embedding[ids[STEPS - n :, b]])) for b, n in enumerate(LENGTHS)]
    np.testing.assert_allclose(got, alone, rtol=1e-5)
    np.testing.assert_array_equal(predict(numbers(), params, text_batch(padding=5))[:, 0], got)
    reads_padding = predict(numbers(), params, batch._replace(mask=jnp.ones_like(batch.mask)))[:, 0]
    assert not np.any(np.isclose(reads_padding, got, rtol=1e-3)[LENGTHS < STEPS])


@pytest.mark.parametrize("cell", ["rnn", "gru_reset_before"])
def test_an_unpadded_batch_predicts_what_each_sequence_alone_does(cell):
    spec = dataclasses.replace(ADDING, cell=cell, readout="mean", hidden=(3,))
    params, batch = trained(spec), adding_batch()
    got = compiled(over(model.predict, spec))(numbers(), params, batch)[:, 0]
    np.testing.assert_allclose(got, [by_hand(spec, params, batch.xs[:, b]) for b in range(4)], rtol=1e-5)


def test_the_mean_is_the_sum_over_the_live_count():
    params, batch = trained(TEXT), text_batch()
    bias = float(params.readout.b[0])
    mean, total = (
        compiled(over(model.predict, dataclasses.replace(TEXT, readout=r)))(numbers(), params, batch)[:, 0]
        for r in ("mean", "sum")
    )
    np.testing.assert_allclose(total - bias, np.float32(LENGTHS) * (mean - bias), rtol=1e-4)
    assert not np.allclose(total - bias, STEPS * (mean - bias), rtol=1e-2)


def test_predictions_are_the_same_by_a_plain_scan():
    params, batch = trained(TEXT), text_batch()
    ours, plain = (
        compiled(lambda p, by=by: model.predict(having(TEXT, numbers()), p, batch, *by))(params)
        for by in ((), (unroll_autodiff,))
    )
    np.testing.assert_allclose(ours, plain, rtol=1e-6)


def test_only_the_embeddings_of_words_that_were_read_get_a_gradient():
    params, batch = trained(TEXT), text_batch()
    slope = compiled(jax.grad(over(model.loss, TEXT), argnums=1))(numbers(), params, batch).embedding
    read = set(np.asarray(batch.xs)[np.asarray(batch.mask)])
    assert set(np.flatnonzero(np.any(np.asarray(slope) != 0, axis=1))) == read and 0 not in read


# --- losses -------------------------------------------------------------------------------------------------


def test_squared_error():
    p, y = np.float32([0.5, -1.0, 2.0]), np.float32([1.0, -1.0, 0.0])
    np.testing.assert_allclose(compiled(partial(model.losses, ADDING))(p[:, None], y), (p - y) ** 2)


def test_logistic_loss_is_minus_the_log_of_the_probability_of_the_label():
    logits = np.float32([-3.0, -0.1, 0.0, 0.7, 9.0])
    losses = compiled(partial(model.losses, TEXT))
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(
        losses(logits[:, None], np.ones(5, np.float32)), -np.log(probability), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(losses(logits[:, None], np.zeros(5, np.float32)), -np.log(1 - probability), rtol=1e-5)


def test_logistic_loss_neither_overflows_nor_vanishes_far_out():
    losses = compiled(partial(model.losses, TEXT))
    far = np.float32([1e4, -1e4, 1e4, -1e4])
    np.testing.assert_allclose(losses(far[:, None], np.float32([1, 0, 0, 1])), [0, 0, 1e4, 1e4])


def test_a_word_that_means_nothing_is_refused_not_taken_for_another(monkeypatch):
    params, batch = trained(ADDING), Batch(jnp.ones((STEPS, 4, 2)), jnp.ones(4))
    assert "readout is 'max'" in refusal(model.run, dataclasses.replace(ADDING, readout="max"), params, batch)
    assert "cell is 'elman'" in refusal(model.layers, dataclasses.replace(ADDING, cell="elman"))
    real = TASKS["adding"]
    monkeypatch.setitem(TASKS, "adding", lambda spec: real(spec)._replace(loss="huber"))
    for call in (model.losses, model.is_correct):
        assert "'huber'" in refusal(call, ADDING, jnp.ones((3, 1)), jnp.ones(3))
    assert "'huber'" in refusal(model.mean_prediction, ADDING, jnp.ones((2, 3, 1)))


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16])
@pytest.mark.parametrize("embedding", [0, 3])
def test_the_type_of_an_id_changes_nothing(kind, embedding):
    spec = Spec("labelled", steps=1, vocabulary=300, embedding=embedding)
    table = jnp.arange(900, dtype=jnp.float32).reshape(300, 3) if embedding else None
    ids = np.array([[5, 127, 0]])
    found = model.embedded(spec, model.Model(table, (), None), jnp.asarray(ids, kind))
    np.testing.assert_array_equal(found, (np.eye(300) if table is None else np.asarray(table))[ids])


def test_the_loss_is_the_mean_over_the_batch():
    params, batch = trained(TEXT), text_batch()
    predictions = compiled(over(model.predict, TEXT))(numbers(), params, batch)
    each = model.losses(TEXT, predictions, batch.ys)
    assert np.ptp(each) > 0.1
    whole = compiled(over(model.loss, TEXT))(numbers(), params, batch)
    np.testing.assert_allclose(whole, np.mean(each), rtol=1e-6)


# --- parameters ---------------------------------------------------------------------------------------------


@every_cell
@pytest.mark.parametrize("spec, d", [(ADDING, 2), (TEXT, TEXT.embedding)], ids=["adding", "text"])
def test_each_layer_reads_the_width_of_the_one_below(cell, spec, d):
    spec = dataclasses.replace(spec, cell=cell, hidden=(5, 7, 3))
    params = jax.eval_shape(lambda: model.init(having(spec, numbers()), jax.random.key(0)))
    gates = len(model.layers(having(spec, numbers()))[0].gates)
    shapes = [(layer.w.shape, layer.u.shape) for layer in params.layers]
    assert shapes == [((i, gates * h), (h, gates * h)) for i, h in [(d, 5), (5, 7), (7, 3)]]
    assert params.readout.w.shape == (3, 1) and params.readout.b.shape == (1,)
    assert params.embedding is None if spec is not TEXT and d == 2 else params.embedding.shape == (VOCABULARY, d)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


@every_cell
@pytest.mark.parametrize("spec", [ADDING, TEXT], ids=["adding", "text"])
def test_groups_hold_every_parameter_exactly_once(cell, spec):
    spec = dataclasses.replace(spec, cell=cell)
    params = trained(spec)
    groups = model.groups(params)
    grouped = [id(leaf) for group in groups.values() for leaf in jax.tree.leaves(group)]
    assert sorted(grouped) == sorted(id(leaf) for leaf in jax.tree.leaves(params))
    names = ["embedding"] if spec.task == "labelled" else []
    names += [f"layer{i}/{part}" for i in range(len(spec.hidden)) for part in "wub"] + ["readout"]
    assert list(groups) == names
    assert groups["layer0/u"] is params.layers[0].u and groups["layer0/w"] is params.layers[0].w


@cache
def _initial(spec):
    return compiled(over(model.init, spec))


def initial(spec, seed=0, **changes):
    return jax.tree.map(np.asarray, _initial(spec)(numbers(**changes), jax.random.key(seed)))


def test_gain_scales_the_recurrent_weights_alone():
    spec = dataclasses.replace(TEXT, cell="rnn", u_init="uniform")
    one, two = initial(spec), initial(spec, gain=2.0)
    for a, b in zip(one.layers, two.layers, strict=True):
        np.testing.assert_array_equal(2 * a.u, b.u)
    np.testing.assert_array_equal(one.layers[0].w, two.layers[0].w)
    jax.tree.map(np.testing.assert_array_equal, (one.embedding, one.readout), (two.embedding, two.readout))


def test_forget_bias_is_the_forget_gates_in_every_layer():
    for layer in initial(TEXT, forget_bias=2.5).layers:
        i, f, o, g = np.split(np.asarray(layer.b), 4)
        np.testing.assert_array_equal(f, np.full(f.shape, 2.5))
        assert not i.any() and not o.any() and not g.any()


@pytest.mark.parametrize("cell, gate", [("lstm", "f"), ("gru", "z"), ("gru_reset_before", "z")])
def test_chrono_replaces_the_bias_of_the_gate_that_keeps(cell, gate):
    spec = dataclasses.replace(ADDING, cell=cell, chrono=True, hidden=(30,), u_init="uniform")
    b = np.asarray(initial(spec, longest=200.0, forget_bias=9.0).layers[0].b)
    blocks = dict(zip(model.layers(having(spec, numbers()))[0].gates, np.split(b, len(b) // 30), strict=True))
    kept = blocks.pop(gate)
    assert 0 <= kept.min() and np.log(100) < kept.max() <= np.log(199) + 1e-5
    if cell == "lstm":
        np.testing.assert_array_equal(blocks.pop("i"), -kept)
    assert not any(block.any() for block in blocks.values())


def test_initialisations_are_those_the_spec_names():
    spec = dataclasses.replace(ADDING, w_init="identity", u_init="identity", hidden=(3, 3))
    params = initial(spec, gain=0.5)
    np.testing.assert_array_equal(params.layers[0].w, np.eye(2, 3))
    np.testing.assert_array_equal(params.layers[1].u, 0.5 * np.eye(3))


def test_layers_and_seeds_are_drawn_apart():
    spec = dataclasses.replace(ADDING, hidden=(2, 2))
    a, b = initial(spec, 0), initial(spec, 1)
    assert not np.allclose(a.layers[0].u, a.layers[1].u) and not np.allclose(a.layers[0].w, a.layers[1].w)
    assert not np.allclose(a.layers[0].w, b.layers[0].w) and not np.allclose(a.readout.w, b.readout.w)


def test_embeddings_have_norms_near_one_and_the_readout_starts_unbiased():
    params = initial(dataclasses.replace(TEXT, vocabulary=500, embedding=64))
    norms = np.linalg.norm(params.embedding, axis=1)
    assert 0.97 < norms.mean() < 1.03 and norms.std() < 0.15
    np.testing.assert_array_equal(params.readout.b, [0.0])
    assert np.any(params.readout.w != 0)


# --- the cut ------------------------------------------------------------------------------------------------


def test_the_cut_is_what_the_spec_asks_for():
    batch = text_batch()
    plain = model.cut(having(TEXT, numbers(clip=8.0, window=2)), batch)
    assert plain.mask is batch.mask and plain.keep is None and plain.clip is None
    both = dataclasses.replace(TEXT, truncate=True, clip="adjoint")
    cut = model.cut(having(both, numbers(clip=8.0, window=2)), batch)
    np.testing.assert_array_equal(cut.keep, [1, 1, 0, 1, 0, 1])
    assert float(cut.clip) == 8.0 / 4  # per example, of a batch mean over four


def test_inputs_of_the_first_layer_are_those_of_the_task():
    assert model.layers(having(ADDING, numbers()))[0].init and TASKS["adding"](ADDING).inputs == 2
    assert jax.eval_shape(model.layers(having(ADDING, numbers()))[0].init, jax.random.key(0)).w.shape == (2, 5)
