"""Laws of the library's own cells and initialisations as parts: what a word says, and stacks that no word can say."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _digests import digests
from _own import Leaky
from _refusals import refusal
from _rules import Near
from _training import having

import seqdyn as sd
from analysis import learned as analysis_learned
from seqdyn import described, parts
from seqdyn.data.synthetic import PARTS
from seqdyn.data.tasks import task_of
from seqdyn.io import stacks
from seqdyn.learn import dropout, model, train, verify
from seqdyn.nets.inits import INITS

X64 = False
WORD = sd.Spec(steps=6, hidden=(3,), batch=4, holdout=4)
LEVELS = {
    "rnn": sd.RNN,
    "lstm": sd.LSTM,
    "gru": sd.GRU,
    "gru_reset_before": partial(sd.GRU, reset_before=True),
    "dense": sd.Dense,
    "dense_per_position": partial(sd.DensePerPosition, steps=6),
}


def traced(spec, **numbers):
    """The program of the start of a run, and of an update and a look at held-out sequences, with its numbers."""
    of = spec.having(**numbers).arrays()

    def started():
        return train.init(of, {})

    def updated(state):
        batch = task_of(of).batch(None, "train", jax.random.key(0))._replace(noise=jax.random.key(1))
        return train.step(of, state, batch), train.evaluate(of, state, {})

    def read(made):
        keys = jax.dtypes.prng_key
        numbers = [c for c in made.consts if not jnp.issubdtype(c.dtype, keys)]
        return str(made.jaxpr), [np.asarray(number).tolist() for number in numbers]

    with jax.numpy_dtype_promotion("standard"):
        return read(jax.make_jaxpr(started)()), read(jax.make_jaxpr(updated)(jax.eval_shape(started)))


def both(level, **fields):
    """The spec of words, and the same with `layers=` in the place of its cell's words."""
    taken = {name: fields.pop(name) for name in ("cell", "w_init", "u_init", "chrono", "activation") if name in fields}
    word = dataclasses.replace(WORD, **taken, **fields)
    bare = {name: getattr(sd.Spec, name) for name in taken}
    return word, dataclasses.replace(word, **bare, hidden=(32,), layers=tuple(level(h) for h in word.hidden))


@pytest.mark.parametrize("cell", LEVELS)
def test_a_word_and_its_part_are_one_program(cell):
    more = {"b": 0.5} if cell == "lstm" else {}
    level = partial(LEVELS[cell], w=sd.GlorotUniform(0.7), **({"forget_bias": 0.5} if more else {}))
    level = level if cell.startswith("dense") else partial(level, u=sd.Orthogonal(1.2))
    word, part = both(level, cell=cell)
    assert part.hidden == word.hidden
    assert traced(word, gain=1.2, input_gain=0.7, forget_bias=0.5) == traced(part)


@pytest.mark.parametrize("init", INITS)
def test_an_initialisation_by_word_and_by_part_is_one_program(init):
    made = INITS[init]
    level = partial(sd.RNN, activation="relu", w=made(0.7), u=made(1.2))
    word, part = both(level, activation="relu", w_init=init, u_init=init)
    assert traced(word, gain=1.2, input_gain=0.7)[0] == traced(part)[0]


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_before"])
def test_chrono_by_word_and_by_part_starts_alike(cell):
    word, part = both(partial(LEVELS[cell], chrono=9.0), cell=cell, chrono=True)
    if cell != "lstm":
        assert traced(word, longest=9.0)[0] == traced(part)[0]
        return
    # The word's forget bias is not even made here.
    starts = [train.init(having(spec, sd.Numbers(longest=9.0).arrays()), {}).params for spec in (word, part)]
    jax.tree.map(np.testing.assert_array_equal, *starts)


@pytest.mark.parametrize(
    "cell, fields",
    [
        ("rnn", dict(normalise="layer")),
        pytest.param("lstm", dict(normalise="batch", bidirectional=True), marks=pytest.mark.slow),
        ("lstm", dict(dropout="zoneout", bidirectional=True)),
        ("lstm", dict(penalties=("l2", "orthogonality"), optimizer="adamw")),
        pytest.param("rnn", dict(penalties=("l0", "l1")), marks=pytest.mark.slow),
        ("rnn", dict(penalties=("omega",))),
        pytest.param("gru", dict(dtype="bfloat16", segment=3, dropout="variational"), marks=pytest.mark.slow),
    ],
    ids=lambda of: of if isinstance(of, str) else "_".join(map(str, of)),
)
def test_words_beside_the_librarys_cells_mean_what_they_mean_beside_words(cell, fields):
    word, part = both(LEVELS[cell], cell=cell, **fields)
    numbers = {name: 0.1 for name in word.penalties} | {"dropout": 0.3 if word.dropout != "none" else 0.0}
    assert traced(word, norm_gain=0.5, weight_decay=0.1, **numbers) == traced(
        part, norm_gain=0.5, weight_decay=0.1, **numbers
    )


@pytest.mark.parametrize("word", PARTS)
def test_a_task_by_word_and_by_part_draws_and_judges_alike(word):
    """Lengths of their own, a training set, chance and criterion included."""
    made = PARTS[word]
    fields = dict(readout="every") if made.every_step else {}
    fields |= dict(shortest=12) if made.any_length else dict(training_set=8)
    more = {"symbols": 3} if word == "temporal_order_3" else {}
    spec = dataclasses.replace(WORD, task=word, steps=24, **fields)
    part = dataclasses.replace(spec, task=made(24, **more), steps=100)
    assert part.steps == 24 and made.__name__ in sd.__all__
    one, other = task_of(spec), task_of(part)
    batches = [
        jax.make_jaxpr(lambda key, of=of: of.batch(None, "train", key))(jax.random.key(0)) for of in (one, other)
    ]
    assert str(batches[0]) == str(batches[1])
    said = [(of.inputs, of.outputs, of.loss, of.chance, of.learned) for of in (one, other)]
    assert said[0] == said[1] and np.isfinite(one.chance)
    assert analysis_learned.criterion(manifest_of(spec)) == analysis_learned.criterion(manifest_of(part))


def manifest_of(spec):
    return sd.Experiment("x", sd.grid(spec), updates=2).describe()


def test_lengths_of_a_task_may_stand_in_one_experiment():
    lengths = [sd.grid(sd.Spec(sd.Adding(t), name=f"T {t}")) for t in (5, 9)]
    assert [s.steps for s in sd.Experiment("x", lengths, updates=2).specs] == [5, 9]
    other = sd.grid(sd.Spec(sd.Parity(5), name="other"))
    assert "task" in refusal(sd.Experiment, "x", (lengths[0], other), updates=2)
    sums = sd.Spec(sd.TemporalOrder(20), loss=Near(0.5), dropout="inputs", monte_carlo=2)
    assert np.isnan(task_of(sums).chance)


# --- stacks that no word can say --------------------------------------------------------------------------------

MIXED = sd.Spec(
    steps=6,
    batch=4,
    holdout=4,
    layers=(Leaky(3), sd.LSTM(2, u=sd.Orthogonal(1.1)), sd.GRU(3, chrono=5.0), sd.RNN(2, "relu", u=sd.Identity())),
)


@pytest.mark.slow
def test_the_gradient_of_a_mixed_stack_is_autodiffs_and_only_an_lstm_has_a_c():
    first = sd.grid(MIXED).at(0).arrays()
    assert verify.gradient_error(first, None) < 1e-5
    carries = [cell.initial_carry((4,)) for cell in model.layers(first)]
    assert [hasattr(carry, "c") for carry in carries] == [False, True, False, False]
    assert model.gates(dataclasses.replace(MIXED, layers=MIXED.layers[1:])) == (*"ifog", *"rzn", "h")


def test_zoneout_has_two_masks_for_an_lstm_alone():
    spec = dataclasses.replace(MIXED, layers=(sd.LSTM(2), sd.GRU(3)), dropout="zoneout")
    masks = dropout.draw(having(spec, sd.Numbers(dropout=0.5)), jax.random.key(0), None, (6, 4, 2))
    assert masks.inner is not None and [m.shape for m in masks.inner] == [(6, 4, 4), (6, 4, 3)]


def test_an_axis_is_named_by_the_end_of_its_path():
    assert len(sd.grid(MIXED, forget_bias=[0.0, 1.0], chrono=[4.0, 9.0])) == 4
    shared = sd.grid(MIXED, **{"u.gain": [0.5, 1.0]}).layers
    assert all(layer.u.gain.tolist() == [0.5, 1.0] for layer in shared[1:])
    assert shared[2].w.gain.tolist() == [1.0, 1.0]
    assert "layers[1].w.gain" in refusal(sd.grid, MIXED, gain=[1.0])


def test_a_stack_is_json_and_is_made_anew_of_it():
    assert described.rebuilt(parts.describe(MIXED.layers)) == MIXED.layers
    assert parts.describe(sd.LSTM(2))["part"] == "seqdyn:LSTM"
    assert {type(LEVELS[name](2)).__name__ for name in LEVELS} <= set(sd.__all__)
    assert all(made.__name__ in sd.__all__ for made in INITS.values())
    assert {name: LEVELS[name](2).word for name in LEVELS} == dict(zip(LEVELS, LEVELS, strict=True))


@pytest.mark.slow
def test_a_grid_of_parts_has_the_records_of_words_and_a_mixed_stack_is_probed(tmp_path):
    word, part = both(sd.LSTM, cell="lstm")
    axes = dict(gain=[0.9, 1.1], forget_bias=[0.0]), {"u.gain": [0.9, 1.1], "forget_bias": [0.0]}
    outs = []
    for name, spec, of in (("words", word, axes[0]), ("parts", part, axes[1])):
        e = sd.Experiment("x", sd.grid(spec, **of), updates=2, tile=2, probes=("weights", "units"), diagnostic=2)
        outs.append(sd.run(e, tmp_path / name, verify=False))
    assert digests(outs[0]) == digests(outs[1])
    assert sd.load(outs[1])["u.gain"].values.tolist() == [0.9, 1.1]
    spec = dataclasses.replace(MIXED, layers=MIXED.layers[1:])
    probes = ("weights", "units", "jacobians", "lyapunov")
    e = sd.Experiment("x", sd.grid(spec), updates=2, probes=probes, diagnostic=2, modes=2)
    ds = sd.load(sd.run(e, tmp_path / "mixed", verify=False)).load()
    there = np.isfinite(ds.spectral_radius[0, 0].values)
    assert there.tolist() == [
        [g in "ifog" for g in "ifogrznh"],
        [g in "rzn" for g in "ifogrznh"],
        [g == "h" for g in "ifogrznh"],
    ]
    assert np.array_equal(np.isfinite(ds.gate_mean[0, 0, :, :, 0]), there)
    assert np.isfinite(ds.adjoint_norm_c[0, 0, 0]).all() and np.isnan(ds.adjoint_norm_c[0, 0, 1:]).all()
    assert np.isfinite(ds.step_norm[0, 0]).all() and np.isfinite(ds.lyapunov_exponent[0, 0, 0]).all()
    assert sd.predict(tmp_path / "mixed", 0, np.zeros((3, 6, 2), np.float32)).shape[0] == 3
    assert "gate_value" in sd.replay(tmp_path / "mixed", 0, 0, 1, ["gate_value"])


# --- initialisations of one's own -------------------------------------------------------------------------------


@sd.part
class Shift:
    """A cyclic shift, of NumPy, times a gain."""

    gain: sd.Number = sd.number(1.0)

    def build(self):
        return lambda key, shape, dtype: self.gain * np.roll(np.eye(*shape), 1, axis=0)


@sd.part
class Odd:
    what: str

    def build(self):
        return {
            "number": 1.0,
            "takes": lambda key: jnp.eye(3),
            "shape": lambda key, shape, dtype: jnp.zeros(3),
            "complex": lambda key, shape, dtype: jnp.zeros(shape, complex),
            "text": lambda key, shape, dtype: "x",
            "asks": lambda key, shape, dtype: jnp.eye(*shape) if float(jax.random.uniform(key)) else jnp.eye(*shape),
        }[self.what]


def test_an_initialisation_of_ones_own_stands_where_the_librarys_do():
    spec = dataclasses.replace(WORD, hidden=(32,), layers=(sd.LSTM(3, u=Shift(0.5)),))
    params = train.init(having(spec, sd.Numbers().arrays()), {}).params
    assert params.layers[0].u.dtype == jnp.float32
    np.testing.assert_array_equal(params.layers[0].u, np.tile(0.5 * np.roll(np.eye(3), 1, axis=0), 4))
    assert len(sd.grid(spec, **{"u.gain": [0.5, 2.0]})) == 2


@pytest.mark.parametrize(
    "made, words",
    [
        (lambda: sd.LSTM(0), "LSTM.hidden 0"),
        (lambda: sd.GRU(2.0), "GRU.hidden 2.0"),
        (lambda: sd.LSTM(3, u="orthogonal"), "LSTM.u 'orthogonal' part"),
        (lambda: sd.LSTM(3, u=sd.Orthogonal), "LSTM.u class Orthogonal(…)"),
        (lambda: sd.RNN(3, "soft"), "RNN.activation 'soft' 'tanh'"),
        (lambda: sd.LSTM(3, chrono=2.0), "LSTM.chrono 2.0 above"),
        (lambda: sd.LSTM(3, forget_bias=0.0, chrono=9.0), "LSTM.forget_bias LSTM.chrono"),
        (lambda: sd.Copy(20), "Copy.steps 20 21"),
        (lambda: sd.TemporalOrder(20, 4), "TemporalOrder.symbols 4 3"),
        (lambda: valid(task=sd.Copy(24)), "ys Copy readout"),
        (lambda: valid(task=sd.DelayedXOR(24), shortest=9), "shortest 9 DelayedXOR"),
        (lambda: valid(task=sd.Adding(24), shortest=25), "shortest 25 24"),
        (lambda: valid(task=sd.Adding(24), steps=25), "steps 25 Adding 24"),
        (lambda: valid(task=sd.Adding), "task class Adding(…)"),
        (lambda: sd.Orthogonal(-1.0), "Orthogonal.gain -1.0 at least 0"),
        (lambda: sd.Sparse(1.0, 0), "Sparse.nonzeros 0"),
        (lambda: sd.DensePerPosition(3, steps=0), "DensePerPosition.steps 0"),
        *(
            (lambda what=what: both(partial(sd.RNN, u=Odd(what)))[1], f"RNN.u Odd {word}")
            for what, word in (
                ("number", "1.0 function"),
                ("takes", "function"),
                ("shape", "(3,)"),
                ("complex", "real"),
                ("text", "'x'"),
                ("asks", "jnp.where"),
            )
        ),
        (lambda: valid(layers=(sd.LSTM(3), Leaky(2)), normalise="layer"), "normalise 'layer' Leaky"),
        (lambda: valid(layers=(sd.LSTM(3), Leaky(2)), penalties=("l2",)), "penalties 'l2' Leaky"),
        (lambda: valid(layers=(sd.LSTM(3), Leaky(2)), dropout="recurrent"), "dropout 'recurrent' Leaky"),
        (lambda: valid(layers=(sd.RNN(3), sd.LSTM(2)), penalties=("omega",)), "penalties 'omega' LSTM"),
        (lambda: valid(layers=(sd.RNN(3), sd.LSTM(2)), dropout="candidate"), "dropout 'candidate' rnn"),
        (lambda: valid(layers=(sd.LSTM(3), sd.Dense(2)), bidirectional=True), "bidirectional Dense"),
        (lambda: valid(layers=(sd.DensePerPosition(2, steps=7),), steps=6), "DensePerPosition.steps 7 6"),
        (lambda: valid(layers=(sd.LSTM(3),), u_init="gaussian"), "u_init 'gaussian' LSTM"),
        (lambda: valid(layers=(sd.LSTM(3), sd.GRU(2)), floss=1), "floss 1"),
        (
            lambda: stacks.stack(sd.Spec(layers=(sd.LSTM(3), sd.GRU(2))), "PyTorch", ("lstm",)),
            "layers 'LSTM GRU' PyTorch",
        ),
        (lambda: stacks.stack(sd.Spec(layers=(sd.LSTM(3), Leaky(2))), "PyTorch", ("lstm",)), "PyTorch Leaky"),
    ],
)
def test_what_does_not_fit_is_one_sentence(made, words):
    sentence = refusal(made)
    assert all(word.strip("'") in sentence for word in words.split(" ")), sentence


def valid(**fields):
    return sd.Experiment("x", sd.Spec(batch=4, **fields), updates=2, probes=())


def test_other_frameworks_are_told_the_same_of_parts_as_of_words():
    word, part = both(sd.LSTM, cell="lstm")
    assert stacks.stack(word, "PyTorch", ("lstm",)) == stacks.stack(part, "PyTorch", ("lstm",))


def test_a_swept_number_that_another_replaces_is_refused():
    spec = sd.Spec(task=sd.Adding(4), batch=2, holdout=2, layers=(sd.LSTM(2, chrono=5.0),))
    with pytest.raises(sd.ConfigError, match=r"LSTM\.forget_bias is 2.0 and LSTM\.chrono is 5.0"):
        sd.grid(spec, forget_bias=[1.0, 2.0])


def test_what_is_none_is_crossed_once_the_spec_has_a_number_there():
    spec = sd.Spec(task=sd.Adding(4), layers=(sd.LSTM(2),))
    assert "LSTM(…, chrono=…)" in refusal(sd.grid, spec, chrono=[3.0, 9.0])
    spec = dataclasses.replace(spec, layers=(sd.LSTM(2, chrono=5.0),))
    assert sd.grid(spec, chrono=[3.0, 9.0]).layers[0].chrono.tolist() == [3.0, 9.0]


@sd.part
class Scaled:
    """h' = tanh(scale (W x + U h))."""

    hidden: int

    def build(self, inputs, scale=2.0):
        def init(key):
            return {"w": jax.random.normal(key, (inputs, self.hidden)), "u": jnp.eye(self.hidden)}

        def step(params, h, x):
            return jnp.tanh(scale * (x @ params["w"] + h @ params["u"]))

        return sd.cell(init, step, lambda batch: jnp.zeros((*batch, self.hidden)))


def test_a_second_argument_of_a_users_build_keeps_its_default():
    assert sd.Spec(task=sd.Adding(4), batch=2, holdout=2, layers=(Scaled(2),)).hidden == (2,)
