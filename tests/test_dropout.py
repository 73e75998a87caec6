"""Laws of dropout in whole runs: rate 0 is none, evaluation is without it, masks keep the mean, the data of an update
is a function of its number, and Monte Carlo evaluation is the mean of networks with it."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn.backend import compiled
from seqdyn.data.text import Examples
from seqdyn.learn import dropout, model, train
from seqdyn.learn.config import Experiment, Hypers, Spec, grid
from seqdyn.learn.verify import gradient_error
from seqdyn.types import ConfigError

X64 = False
T, V, N = 6, 9, 12
WORDS = Spec("labelled", T, 4, vocabulary=V, embedding=3, hidden=(5, 4), cell="gru", optimizer="sgd")
KINDS = ("words", "inputs", "outputs", "recurrent_step", "recurrent", "variational", "candidate", "zoneout")
each_kind = pytest.mark.parametrize("kind", KINDS)


def hypers(**changes):
    return Hypers(**({"lr": 0.1} | changes)).arrays()


def data():
    def split(seed):
        rng = np.random.default_rng(seed)
        lengths = (1 + np.arange(N) % T).astype(np.int32)
        xs = np.where(np.arange(T)[None] >= T - lengths[:, None], rng.integers(1, V, (N, T)), 0).astype(np.int32)
        return Examples(*map(jnp.asarray, (xs, lengths, rng.integers(0, 2, N).astype(np.int32))))

    return {name: split(i) for i, name in enumerate(("train", "validation", "test"))}


def of(kind, **changes):
    return dataclasses.replace(WORDS, **({"dropout": kind} | changes))


@cache
def program(spec, updates):
    """Compiled once for every rate."""

    def both(h, state):
        state, metrics = train.chunk(spec, h, state, data(), updates)
        return state, metrics, train.evaluate(spec, h, state, data())

    return compiled(both)


def run(spec, h, start=None, updates=3):
    """(state, metrics, evaluation) after some updates."""
    with jax.numpy_dtype_promotion("standard"):
        return program(spec, updates)(h, train.init(spec, h) if start is None else start)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def different(a, b):
    return any(not np.array_equal(p, q, equal_nan=True) for p, q in zip(*map(jax.tree.leaves, (a, b)), strict=True))


# --- rate 0, evaluation, (key, n) ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without():
    """The run without dropout, and what judges a state without it, by the hidden widths."""
    specs = [dataclasses.replace(WORDS, hidden=hidden) for hidden in ((5,), (5, 4))]
    return {s.hidden: (run(s, hypers()), compiled(partial(train.evaluate, s))) for s in specs}


@pytest.mark.parametrize(
    "kind", ["words", "recurrent_step", "variational", "candidate", "zoneout"]
)  # all but its parts
def test_rate_0_is_none_bit_for_bit_and_a_rate_above_0_is_not(kind, without):
    """Parameters, records and evaluation; and the rate is a number: both are one program."""
    hidden = (5, 4) if kind in ("inputs", "variational") else (5,)
    spec, (plain, judge) = of(kind, hidden=hidden), without[hidden]
    same(run(spec, hypers()), plain)
    state, metrics, judged = run(spec, hypers(dropout=0.5))
    assert different(state.params, plain[0].params)
    assert np.all(metrics["finite"])
    # Evaluated is the whole network: with zoneout the expected step, which is another one.
    assert different(judged, judge(hypers(), state, data())) == (kind == "zoneout")


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_rate_0_of_zoneout_is_none_bit_for_bit_in_every_cell(cell):
    plain = dataclasses.replace(WORDS, cell=cell, hidden=(33,))
    same(run(dataclasses.replace(plain, dropout="zoneout"), hypers()), run(plain, hypers()))


def test_the_masks_of_an_update_are_a_function_of_its_number_and_of_the_seed():
    spec, h = of("recurrent_step", hidden=(5,), cell="rnn"), hypers(dropout=0.5)
    whole, metrics, _ = run(spec, h, updates=4)
    half, first, _ = run(spec, h, updates=2)
    rest, second, _ = run(spec, h, half, updates=2)
    same(rest, whole)
    same(jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second), metrics)
    rows = (jnp.arange(4), jnp.ones(4))
    keys = [train.drawn(spec, h, data(), rows, jnp.int32(n)).noise for n in (0, 1, 0)]
    noise = [np.asarray(jax.random.key_data(k)) for k in keys]
    assert np.array_equal(noise[0], noise[2]) and not np.array_equal(noise[0], noise[1])


# --- masks --------------------------------------------------------------------------------------------------


def masks(kind, rate=0.25, key=0, batch=50, steps=20, hidden=(8, 6), **changes):
    spec = of(kind, hidden=hidden, steps=steps, batch=batch, **changes)
    ids = jnp.asarray(np.random.default_rng(1).integers(0, V, (steps, batch)))
    drawn = dropout.draw(spec, hypers(dropout=rate), jax.random.key(key), ids, (steps, batch, 3))
    return drawn, ids


@each_kind
def test_masks_keep_the_mean_and_only_what_is_named_is_dropped(kind):
    drawn = masks(kind)[0]
    there = {name for name, value in drawn._asdict().items() if value is not None}
    assert there == {"variational": {"inputs", "inner", "outputs"}}.get(
        kind, {kind} if kind in ("words", "inputs", "outputs") else {"inner"}
    )
    high = 1.0 if kind == "zoneout" else 1 / 0.75
    for leaf in jax.tree.leaves(drawn):
        np.testing.assert_allclose(np.unique(leaf), [0, high], rtol=1e-6)
    # Independent draws: masks of one step or all, of words one a word.
    one = [
        np.asarray(leaf)[0] if kind in ("recurrent", "variational") and leaf.ndim == 3 else leaf
        for leaf in jax.tree.leaves(drawn)
    ]
    kept = np.concatenate([np.ravel(leaf) > 0 for leaf in one])
    count = kept.size if kind != "words" else 50 * V
    assert abs(kept.mean() - 0.75) < 4 * (0.75 * 0.25 / count) ** 0.5


@pytest.mark.parametrize("kind", ["recurrent", "variational"])
def test_one_mask_for_all_steps_is_the_same_at_all_and_an_examples_own(kind):
    drawn = masks(kind)[0]
    for leaf in drawn.inner:
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
        assert len(np.unique(leaf[0], axis=0)) > 20
    assert different(drawn, masks(kind, key=1)[0])


@pytest.mark.parametrize("kind", ["recurrent_step", "candidate", "zoneout"])
def test_masks_of_a_step_are_its_own_and_an_examples_own(kind):
    for leaf in masks(kind)[0].inner:
        assert len(np.unique(np.asarray(leaf[:, 0]), axis=0)) > 10 and len(np.unique(leaf[0], axis=0)) > 10
    c_and_h = masks("zoneout", cell="lstm")[0].inner[0]
    assert c_and_h.shape == (20, 50, 16) and np.any(c_and_h[..., :8] != c_and_h[..., 8:])


def test_a_dropped_word_is_dropped_wherever_it_stands_in_its_sequence():
    drawn, ids = masks("words", 0.5)
    fates = [{int(word): set() for word in np.unique(ids)} for _ in range(50)]
    for t in range(20):
        for b in range(50):
            fates[b][int(ids[t, b])].add(float(drawn.words[t, b]))
    assert all(len(fate) <= 1 for fate_of in fates for fate in fate_of.values())
    seen = np.array([min(fate_of[3], default=-1) for fate_of in fates])  # of word 3, sequence by sequence
    assert set(seen) >= {0.0, 2.0}


def test_where_the_masks_act():
    """Words on the vectors of ids, inputs on every level's, outputs on what is read out."""
    h, noise = hypers(dropout=0.5), jax.random.key(3)
    batch = model.TASKS["labelled"](WORDS).batch(data(), "train", (jnp.arange(4), jnp.ones(4)))._replace(noise=noise)
    params = train.init(WORDS, h).params

    def ran(kind):
        drawn = dropout.draw(of(kind), h, noise, batch.xs, (T, 4, 3))
        return model.run(of(kind), h, params, batch), drawn

    x = params.embedding[batch.xs]
    output, drawn = ran("words")
    np.testing.assert_array_equal(output.stacked.layers[0].xs, x * drawn.words[..., None])
    output, drawn = ran("inputs")
    np.testing.assert_array_equal(output.stacked.layers[0].xs, x * drawn.inputs[0][None])
    bare, (output, drawn) = model.run(WORDS, h, params, batch), ran("outputs")
    same(output.stacked.hs, bare.stacked.hs)
    read = np.asarray(bare.stacked.hs[-1] * drawn.outputs) @ np.asarray(params.readout.w) + np.asarray(params.readout.b)
    np.testing.assert_allclose(output.predictions, read, rtol=1e-5, atol=1e-6)


# --- gradients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, cell, changes",
    [
        ("words", "gru", {}),
        ("outputs", "rnn", dict(readout="mean")),
        ("recurrent_step", "lstm", {}),
        ("recurrent", "rnn", {}),
        ("variational", "gru", dict(bidirectional=True)),
        ("candidate", "gru", {}),
        ("zoneout", "lstm", dict(bidirectional=True)),
    ],
)
def test_every_kind_trains_on_the_gradient_of_autodiff(kind, cell, changes):
    with jax.numpy_dtype_promotion("standard"):
        assert gradient_error(of(kind, cell=cell, hidden=(5,), **changes), hypers(dropout=0.5), data()) < 1e-5


def test_rates_are_runs_of_one_program_under_vmap():
    spec = of("variational", hidden=(4,), cell="rnn")
    rates = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(hypers(dropout=r) for r in (0.0, 0.5)))
    with jax.numpy_dtype_promotion("standard"):
        together = compiled(jax.vmap(lambda h: train.chunk(spec, h, train.init(spec, h), data(), 2)[0].params))(rates)
        alone = compiled(lambda h: train.chunk(spec, h, train.init(spec, h), data(), 2)[0].params)(hypers(dropout=0.5))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-6), together, alone)


# --- Monte Carlo --------------------------------------------------------------------------------------------


def test_monte_carlo_at_rate_0_is_the_network_itself(without):
    spec, (state, _, plain) = of("inputs", hidden=(5,), monte_carlo=3), without[(5,)][0]
    judged = compiled(partial(train.evaluate, spec))(hypers(), state, data())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), judged, plain)


def test_monte_carlo_is_minus_log_of_the_mean_probability_by_keys_of_seed_and_update(without):
    h, state = hypers(dropout=0.5), without[(5,)][0][0]
    spec = of("recurrent", hidden=(5,), monte_carlo=3, batch=N)
    evaluate = compiled(partial(train.evaluate, spec))
    judged = evaluate(h, state, data())
    same(judged, evaluate(h, state, data()))
    for other in (
        evaluate(h, state._replace(step=state.step + 1), data()),
        evaluate(hypers(dropout=0.5, seed=1), state, data()),
    ):
        assert different(judged, other)
    look = jax.random.fold_in(train.keys(h).sampling, state.step)
    (key,) = jax.random.split(look, 1)
    batch = model.TASKS["labelled"](spec).batch(data(), "test", (jnp.arange(N), jnp.ones(N)))
    p = np.mean(
        [
            1 / (1 + np.exp(-np.asarray(model.predict(spec, h, state.params, batch._replace(noise=k)), np.float64)))
            for k in jax.random.split(key, 3)
        ],
        axis=0,
    )[:, 0]
    ys = np.asarray(batch.ys)
    np.testing.assert_allclose(judged["test_loss"], -np.mean(np.log(np.where(ys == 1, p, 1 - p))), rtol=1e-5)
    np.testing.assert_allclose(judged["test_accuracy"], np.mean((p > 0.5) == (ys == 1)), rtol=1e-6)


def test_the_mean_prediction_of_classes_bits_and_numbers():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3)) * 30, jnp.float32)
    classes = dataclasses.replace(WORDS, classes=3)
    p = np.asarray(jax.nn.softmax(logits, axis=-1)).mean(0)
    found = model.mean_prediction(classes, logits)
    np.testing.assert_allclose(jax.nn.softmax(found, axis=-1), p, rtol=1e-5)
    np.testing.assert_allclose(model.losses(classes, found, jnp.asarray([2, 0])), -np.log(p[[0, 1], [2, 0]]), rtol=1e-4)
    bits = Spec("next_step", T, 4, features=3, readout="every")
    np.testing.assert_allclose(
        jax.nn.sigmoid(model.mean_prediction(bits, logits)), jax.nn.sigmoid(logits).mean(0), rtol=1e-4
    )
    numbers = dataclasses.replace(WORDS, classes=0)
    np.testing.assert_allclose(model.mean_prediction(numbers, logits), logits.mean(0), rtol=1e-6)


# --- what cannot be -----------------------------------------------------------------------------------------

NUMBERS = dict(task="labelled", steps=6, features=2)
WRONG = [
    (dict(dropout="everything", **NUMBERS), ["dropout", "everything", "zoneout"]),
    (dict(dropout="words", **NUMBERS), ["dropout", "words", "vocabulary is 0", "inputs"]),
    (dict(dropout="candidate", **NUMBERS), ["candidate", "rnn", "lstm or gru"]),
    (dict(dropout="recurrent", cell="dense", **NUMBERS), ["recurrent", "dense", "rnn, lstm and gru"]),
    (dict(dropout="zoneout", cell="gru_reset_before", **NUMBERS), ["zoneout", "gru_reset_before"]),
    (dict(dropout="variational", normalise="layer", **NUMBERS), ["variational", "layer", "inputs"]),
    (dict(dropout="recurrent", penalties=("omega",), **NUMBERS), ["omega", "recurrent"]),
    (dict(monte_carlo=5, **NUMBERS), ["monte_carlo", "5", "'none'"]),
    (dict(monte_carlo=-1, dropout="inputs", **NUMBERS), ["monte_carlo", "-1", "at least 1"]),
    (dict(monte_carlo=True, dropout="inputs", **NUMBERS), ["monte_carlo", "True", "whole number"]),
    (
        dict(monte_carlo=5, dropout="inputs", normalise="batch", mask=False, **NUMBERS),
        ["monte_carlo", "batch", "normalised"],
    ),
    (
        dict(monte_carlo=5, dropout="inputs", task="stream", vocabulary=8, readout="every"),
        ["monte_carlo", "stream", "state"],
    ),
]


def experiment(spec, probes=(), **hyper):
    return Experiment("wrong", (spec,), grid(**hyper), updates=10, chunk=10, probe_every=10, probes=probes)


@pytest.mark.parametrize("fields, words", WRONG, ids=lambda v: v[0] if isinstance(v, list) else None)
def test_what_cannot_be_dropped_is_said_in_one_sentence(fields, words):
    with pytest.raises(ConfigError) as error:
        experiment(Spec(**fields))
    text = str(error.value)
    assert all(word in text for word in words), text
    assert text.endswith(".") and "\n" not in text


@pytest.mark.parametrize("rate", [1.0, -0.1, np.nan])
def test_a_rate_is_at_least_0_and_below_1(rate):
    with pytest.raises(ConfigError, match="dropout"):
        experiment(of("inputs"), dropout=rate)


def test_a_rate_that_no_spec_heeds_and_units_under_zoneout_are_refused():
    with pytest.raises(ConfigError, match="no spec has dropout"):
        experiment(WORDS, dropout=0.5)
    with pytest.raises(ConfigError, match="units.*zoneout"):
        experiment(of("zoneout"), ("units",), dropout=0.5)
    experiment(of("zoneout"), ("jacobians", "lyapunov"), dropout=0.5)
