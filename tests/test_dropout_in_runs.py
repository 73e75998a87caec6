"""Laws of dropout in whole runs: rate 0 is none, evaluation is without it, masks keep the mean, the data of an update
is a function of its number, and Monte Carlo evaluation is the mean of networks with it."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refusals import refusal
from _training import assert_descends, evaluated, having, start, update

from seqdyn.backend import compiled
from seqdyn.data.text import Examples
from seqdyn.learn import dropout, model, train
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.numbers import Numbers
from seqdyn.types import ConfigError

X64 = False
T, V, N = 6, 9, 12
WORDS = Spec("labelled", T, 4, vocabulary=V, embedding=3, hidden=(5, 4), cell="gru", optimizer="sgd")
ROWS = (jnp.arange(4), jnp.ones(4))
KINDS = ("words", "inputs", "outputs", "recurrent_step", "recurrent", "variational", "candidate", "zoneout")
each_kind = pytest.mark.parametrize("kind", KINDS)


def numbers(**changes):
    return Numbers(**({"lr": 0.1} | changes)).arrays()


def data():
    def split(seed):
        rng = np.random.default_rng(seed)
        lengths = (1 + np.arange(N) % T).astype(np.int32)
        xs = np.where(np.arange(T)[None] >= T - lengths[:, None], rng.integers(1, V, (N, T)), 0).astype(np.int32)
        return Examples(*map(jnp.asarray, (xs, lengths, rng.integers(0, 2, N).astype(np.int32))))

    return {name: split(i) for i, name in enumerate(("train", "validation", "test"))}


def of(kind, **changes):
    return dataclasses.replace(WORDS, **({"dropout": kind} | changes))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def different(a, b):
    return any(not np.array_equal(p, q, equal_nan=True) for p, q in zip(*map(jax.tree.leaves, (a, b)), strict=True))


# --- rate 0, evaluation, (key, n) ---------------------------------------------------------------------------


def plain(spec):
    return dataclasses.replace(spec, dropout="none")


# One spec a kind; together every cell, both directions, two levels, and readouts that read every step.
SPECS = {
    "words": of("words", hidden=(5,)),
    "outputs": of("outputs", hidden=(5,), cell="rnn", readout="mean"),
    "recurrent_step": of("recurrent_step", hidden=(5,), cell="lstm"),
    "variational": of("variational", bidirectional=True),
    "candidate": of("candidate", hidden=(5,)),
    "zoneout": of("zoneout", hidden=(5,), cell="lstm"),
}
each_spec = pytest.mark.parametrize("kind", SPECS)


@pytest.mark.parametrize(
    "kind",
    [
        *("recurrent_step", "zoneout"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("variational", "words", "outputs", "candidate")),
    ],
)
def test_rate_0_is_none_bit_for_bit_and_a_rate_above_0_is_not(kind):
    """Parameters, records and evaluation; and the rate is a number: both are one program."""
    spec, h = SPECS[kind], numbers()
    state = start(spec, data())
    bare, none = update(plain(spec), h, state, data(), autodiff=False), update(spec, h, state, data())
    same(none[:2], bare[:2])
    dropped = update(spec, numbers(dropout=0.5), state, data())
    assert different(dropped.after.params, bare.after.params)
    assert np.all(dropped.metrics["finite"])
    # Evaluated is the whole network: with zoneout the expected step, which is another one; else the same program.
    if kind != "zoneout":
        with jax.numpy_dtype_promotion("standard"):
            one, other = (
                str(jax.make_jaxpr(partial(train.evaluate, having(s, h), state))(data())) for s in (plain(spec), spec)
            )
        assert one == other
        return
    looks = [evaluated(*given, state, data()) for given in ((plain(spec), h), (spec, h), (spec, numbers(dropout=0.5)))]
    same(looks[0], looks[1])
    assert different(looks[0], looks[2])


def chunk(spec, updates):
    """Compiled for every rate."""
    return compiled(lambda h, state: train.chunk(having(spec, h), state, data(), updates))


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_rate_0_of_zoneout_is_none_bit_for_bit_in_whole_runs(cell):
    spec = of("zoneout", cell=cell, hidden=(33,))
    state = start(spec, data())
    with jax.numpy_dtype_promotion("standard"):
        same(*(chunk(s, 3)(numbers(), state) for s in (spec, plain(spec))))


def test_the_masks_of_an_update_are_a_function_of_its_number_and_of_the_seed():
    spec, h = SPECS["recurrent_step"], numbers(dropout=0.5)
    begun = start(spec, data())
    with jax.numpy_dtype_promotion("standard"):
        whole, metrics = chunk(spec, 2)(h, begun)
    first = update(spec, h, begun, data())
    second = update(spec, h, first.after, data())
    same(second.after, whole)
    same(jax.tree.map(lambda a, b: np.stack([a, b]), first.metrics, second.metrics), metrics)
    key = compiled(lambda h, n: jax.random.key_data(train.sample(having(spec, h), data(), ROWS, n).noise))
    of_n = [np.asarray(key(numbers(seed=seed), jnp.int32(n))).tobytes() for seed, n in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert of_n[3] == of_n[0] and len(set(of_n)) == 3


# --- masks --------------------------------------------------------------------------------------------------


@cache
def drawing(spec):
    return compiled(lambda h, key, ids: dropout.draw(having(spec, h), key, ids, (spec.steps, spec.batch, 3)))


def masks(kind, rate=0.25, key=0, batch=50, steps=20, hidden=(8, 6), **changes):
    spec = of(kind, hidden=hidden, steps=steps, batch=batch, **changes)
    ids = np.random.default_rng(1).integers(0, V, (steps, batch))
    return jax.tree.map(np.asarray, drawing(spec)(numbers(dropout=rate), jax.random.key(key), ids)), ids


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
    h, noise = numbers(dropout=0.5), jax.random.key(3)
    batch = model.task_of(WORDS).batch(data(), "train", ROWS)._replace(noise=noise)
    params = start(WORDS, data()).params

    @compiled
    def ran(params, batch):
        found = {}
        for kind in ("none", "words", "inputs", "outputs"):
            output = model.run(having(of(kind), h), params, batch)
            stacked = output.stacked
            found[kind] = [layer.xs for layer in stacked.layers], stacked.hs, output.predictions
            found[kind] += (dropout.draw(having(of(kind), h), noise, batch.xs, (T, 4, 3)),)
        return found

    found = jax.tree.map(np.asarray, ran(params, batch))
    x, (bare, hs, _, _) = np.asarray(params.embedding)[batch.xs], found["none"]
    np.testing.assert_array_equal(bare[0], x)
    read, _, _, drawn = found["words"]
    np.testing.assert_array_equal(read[0], x * drawn.words[..., None])
    read, _, _, drawn = found["inputs"]
    assert [mask.shape for mask in drawn.inputs] == [(4, 3), (4, 5)]  # one for all steps of a sequence
    np.testing.assert_array_equal(read[0], x * drawn.inputs[0][None])
    assert (read[1][:, drawn.inputs[1] == 0] == 0).all() and (read[1][:, drawn.inputs[1] > 0] != 0).any()
    read, same_hs, predictions, drawn = found["outputs"]
    np.testing.assert_array_equal(same_hs, hs)
    expected = (hs[-1] * drawn.outputs).astype(float) @ np.asarray(params.readout.w) + np.asarray(params.readout.b)
    np.testing.assert_allclose(predictions, expected, rtol=1e-5, atol=1e-6)


# --- gradients ----------------------------------------------------------------------------------------------


@each_spec
def test_every_kind_trains_on_the_gradient_of_autodiff(kind):
    assert_descends(SPECS[kind], data(), dropout=0.5)


def test_rates_are_runs_of_one_program_under_vmap():
    spec, rates = SPECS["words"], [numbers(dropout=r) for r in (0.0, 0.5)]
    state = start(spec, data())

    def step(h):
        ticket = train.batch_index(having(spec, h), data(), state.step)
        return train.step(having(spec, h), state, train.sample(having(spec, h), data(), ticket, state.step))[0].params

    with jax.numpy_dtype_promotion("standard"):
        together = compiled(jax.vmap(step))(jax.tree.map(lambda *leaves: np.stack(leaves), *rates))
    alone = update(spec, rates[1], state, data()).after.params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-6), together, alone)
    assert different(*(jax.tree.map(lambda leaf, i=i: leaf[i], together) for i in (0, 1)))


# --- Monte Carlo --------------------------------------------------------------------------------------------


def test_monte_carlo_at_rate_0_is_the_network_itself():
    spec = of("recurrent", hidden=(5,), monte_carlo=3, batch=N)
    state = start(spec, data())
    looks = [evaluated(s, numbers(), state, data()) for s in (spec, dataclasses.replace(spec, monte_carlo=0))]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *looks)


def test_monte_carlo_is_minus_log_of_the_mean_probability_by_keys_of_seed_and_update():
    h, spec = numbers(dropout=0.5), of("recurrent", hidden=(5,), monte_carlo=3, batch=N)
    state = start(spec, data())
    judged = evaluated(spec, h, state, data())
    same(judged, evaluated(spec, h, state, data()))
    for other in (
        evaluated(spec, h, state._replace(step=state.step + 1), data()),
        evaluated(spec, numbers(dropout=0.5, seed=1), state, data()),
    ):
        assert different(judged, other)
    batch = model.task_of(spec).batch(data(), "test", (jnp.arange(N), jnp.ones(N)))

    @compiled
    def each(h, state):
        (key,) = jax.random.split(jax.random.fold_in(train.keys(having(spec, h)).sampling, state.step), 1)
        return [model.predict(having(spec, h), state.params, batch._replace(noise=k)) for k in jax.random.split(key, 3)]

    p = np.mean(1 / (1 + np.exp(-np.asarray(each(h, state), np.float64))), axis=0)[:, 0]
    ys = np.asarray(batch.ys)
    np.testing.assert_allclose(judged["test_loss"], -np.mean(np.log(np.where(ys == 1, p, 1 - p))), rtol=1e-5)
    np.testing.assert_allclose(judged["test_accuracy"], np.mean((p > 0.5) == (ys == 1)), rtol=1e-6)


def test_the_mean_prediction_of_classes_bits_and_numbers():
    logits = np.float32(np.random.default_rng(0).normal(size=(4, 2, 3)) * 30)
    classes = dataclasses.replace(WORDS, classes=3)
    bits = Spec("next_step", T, 4, features=3, readout="every")
    numbers = dataclasses.replace(WORDS, classes=0)

    @compiled
    def found(logits):
        ours = [model.mean_prediction(spec, logits) for spec in (classes, bits, numbers)]
        return *ours, model.losses(classes, ours[0], jnp.asarray([2, 0]))

    of_classes, of_bits, of_numbers, losses = (np.asarray(leaf, np.float64) for leaf in found(logits))
    exact = logits.astype(np.float64)
    p = (np.exp(exact) / np.exp(exact).sum(axis=-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(np.exp(of_classes) / np.exp(of_classes).sum(-1, keepdims=True), p, rtol=1e-4)
    np.testing.assert_allclose(losses, -np.log(p[[0, 1], [2, 0]]), rtol=1e-4)
    np.testing.assert_allclose(1 / (1 + np.exp(-of_bits)), (1 / (1 + np.exp(-exact))).mean(0), rtol=1e-4)
    np.testing.assert_allclose(of_numbers, exact.mean(0), rtol=1e-5)


# --- what cannot be -----------------------------------------------------------------------------------------

NUMBERS = dict(task="labelled", steps=6, features=2)
WRONG = [
    (dict(dropout="everything", **NUMBERS), ["dropout", "everything", "zoneout"]),
    (dict(dropout="words", **NUMBERS), ["dropout", "words", "vocabulary is 0", "inputs"]),
    (dict(dropout="candidate", **NUMBERS), ["candidate", "rnn", "lstm or gru"]),
    (dict(dropout="recurrent", cell="dense", **NUMBERS), ["recurrent", "dense", "rnn, lstm and gru"]),
    (dict(dropout="variational", normalise="layer", **NUMBERS), ["variational", "layer", "inputs"]),
    (dict(dropout="recurrent", penalties=("omega",), **NUMBERS), ["omega", "recurrent"]),
    (dict(monte_carlo=5, **NUMBERS), ["monte_carlo", "5", "'none'"]),
    (dict(monte_carlo=-1, dropout="inputs", **NUMBERS), ["monte_carlo", "-1", "at least 0"]),
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
    text = refusal(lambda: experiment(Spec(**fields)))
    assert all(word in text for word in words), text


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
