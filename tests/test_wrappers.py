"""Laws of parts around a cell, which are what the words of a spec say, and of cells of one's own that are random in
training."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refusals import refusal
from _training import having
from test_library_parts import LEVELS, WORD, traced

import seqdyn as sd
from seqdyn.io import stacks
from seqdyn.learn import dropout, model, train, verify
from seqdyn.runs import points

X64 = False
ADDING = sd.Spec(task=sd.Adding(6), batch=4, holdout=4)


@sd.part
class Rough:
    """h' = tanh((W x + U h) ⊙ (1 + s m_t)), m_t a bool in training and 0 in evaluation; s is swept."""

    hidden: int
    s: sd.Number = sd.number(0.5, low=0.0)

    def build(self, inputs):
        return sd.cell(partial(self.init, inputs), self.step, lambda batch: jnp.zeros((*batch, self.hidden)))

    def build_training(self, inputs):
        def step(params, h, x):
            return self.step(params, h, x[..., :inputs], 1 + self.s * x[..., inputs:])

        return sd.cell(partial(self.init, inputs), step, lambda batch: jnp.zeros((*batch, self.hidden)))

    def noise(self, key, steps, batch):
        return jax.random.bernoulli(key, 0.5, (steps, batch, self.hidden))

    def init(self, inputs, key):
        w, u = jax.random.split(key)
        return {"w": jax.random.normal(w, (inputs, self.hidden)), "u": jax.random.normal(u, (self.hidden,) * 2)}

    def step(self, params, h, x, factor=1.0):
        return jnp.tanh((x @ params["w"] + h @ params["u"]) * factor)


@sd.part
class Alone(Rough):
    build_training = None


@sd.part
class Numbered(Rough):
    """Its noise is a number, and it is not random."""

    noise: sd.Number = sd.number(0.1)
    build_training = None


@sd.part
class Lacking(Rough):
    noise: sd.Number = sd.number(0.1)


@sd.part
class Short(Rough):
    def noise(self, key, steps, batch):
        return jax.random.normal(key, (batch, self.hidden))


@sd.part
class Named(Rough):
    def noise(self, key, steps, batch):
        return {"m": jax.random.normal(key, (steps, batch, 1))}


@sd.part
class Longer(Rough):
    def noise(self, key, steps, batch):
        return jax.random.normal(key, (steps, batch, steps))


@sd.part
class Other(Rough):
    def init(self, inputs, key):
        return super().init(inputs if inputs == 2 else 9, key)

    def build_training(self, inputs):
        return sd.cell(lambda key: {"w": jnp.zeros(3)}, lambda params, h, x: h, lambda b: jnp.zeros((*b, self.hidden)))


@pytest.mark.parametrize(
    "wrap, cell, fields",
    [
        (sd.LayerNorm, "rnn", dict(normalise="layer")),
        (sd.LayerNorm, "lstm", dict(normalise="layer", bidirectional=True)),
        (partial(sd.Zoneout, rate=0.3), "lstm", dict(dropout="zoneout", bidirectional=True)),
        (partial(sd.Zoneout, rate=0.3), "rnn", dict(dropout="zoneout", dtype="bfloat16")),
        (partial(sd.RecurrentDropout, rate=0.3), "gru_reset_before", dict(dropout="recurrent")),
        (partial(sd.RecurrentDropout, rate=0.3), "gru", dict(dropout="recurrent", monte_carlo=3)),
        (partial(sd.RecurrentDropout, rate=0.3, each_step=True), "gru", dict(dropout="recurrent_step", segment=3)),
        (partial(sd.CandidateDropout, rate=0.3), "gru", dict(dropout="candidate", penalties=("l2",))),
    ],
)
def test_a_wrapper_around_every_cell_is_the_words_program(wrap, cell, fields):
    word = dataclasses.replace(WORD, cell=cell, **fields)
    said = {name: fields[name] for name in fields if name not in ("normalise", "dropout")}
    part = dataclasses.replace(WORD, hidden=(32,), layers=tuple(wrap(LEVELS[cell](h)) for h in word.hidden), **said)
    assert part.hidden == word.hidden
    assert traced(word, dropout=0.3 if "dropout" in fields else 0.0) == traced(part)


@pytest.mark.slow
def test_each_layer_has_its_own_wrapper_and_the_gradient_is_autodiffs():
    """Read in two directions, the inputs dropped, too; what is drawn inside is not what is drawn for the inputs."""
    layers = (sd.LayerNorm(sd.RNN(8)), sd.Zoneout(sd.LSTM(3), 0.3), sd.GRU(2), Rough(3))
    spec = dataclasses.replace(ADDING, layers=layers, bidirectional=True, dropout="inputs")
    assert spec.label == "LayerNorm(RNN) Zoneout(LSTM) GRU Rough" and spec.hidden == (8, 3, 2, 3)
    assert verify.gradient_error(having(spec, sd.Numbers(dropout=0.4)), None) < 1e-5
    of = having(spec, sd.Numbers(dropout=0.4))
    masks = dropout.draw(of, jax.random.key(0), None, (6, 4, 2))
    assert [None if m is None else m.shape[2] for m in masks.inner] == [None, None, 6, 6, None, None, 3, 3]
    assert not np.array_equal(masks.inner[2], masks.inner[3]) and masks.inputs is not None
    alone = dropout.draw(dataclasses.replace(of, dropout="none"), jax.random.key(0), None, (6, 4, 2))
    assert alone.inputs is None and not np.array_equal(alone.inner[2], masks.inner[2])


def test_a_cell_of_ones_own_reads_its_noise_in_training_alone():
    of = having(dataclasses.replace(ADDING, layers=(Rough(3, s=0.7),)), sd.Numbers())
    batch, params = train.training_batch(of, None, 5), train.init(of, {}).params
    drawn = jax.random.bernoulli(jax.random.split(batch.noise, 1)[0], 0.5, (6, 4, 3))
    layer = jax.tree.map(np.float64, params.layers[0])
    for noise, m in ((batch.noise, np.float64(drawn)), (None, np.zeros((6, 4, 3)))):
        h, hs = np.zeros((4, 3)), []
        for x, m_t in zip(np.float64(batch.xs), m, strict=True):
            h = np.tanh((x @ layer["w"] + h @ layer["u"]) * (1 + 0.7 * m_t))
            hs.append(h)
        got = model.run(of, params, batch._replace(noise=noise)).stacked.hs
        np.testing.assert_allclose(got, hs, atol=1e-5)


def test_its_numbers_are_swept_and_named():
    spec = dataclasses.replace(ADDING, layers=(sd.Zoneout(sd.LSTM(3)), sd.LayerNorm(sd.GRU(2))))
    e = sd.Experiment("x", sd.grid(spec, rate=[0.0, 0.5], forget_bias=2.0, **{"layers[1].gain": 0.1}), updates=2)
    found = points.per_run(json.loads(json.dumps(e.describe())), e.layout, ())
    assert found["rate"].tolist() == [0, 0.5] and found["forget_bias"].tolist() == [2, 2]
    assert {*found["label"]} == {spec.label} == {"Zoneout(LSTM) LayerNorm(GRU)"}


def valid(*layers, **fields):
    return sd.Experiment("x", dataclasses.replace(ADDING, layers=layers, **fields), updates=2, probes=())


@pytest.mark.parametrize(
    "made, words",
    [
        (lambda: sd.Zoneout(sd.Dense(3)), "Zoneout.cell Dense RNN, LSTM or GRU"),
        (lambda: sd.LayerNorm(sd.LSTM), "LayerNorm.cell LSTM"),
        (lambda: sd.Zoneout(sd.LayerNorm(sd.LSTM(3))), "Zoneout.cell LayerNorm"),
        (lambda: sd.CandidateDropout(sd.RNN(3)), "CandidateDropout.cell RNN LSTM or GRU"),
        (lambda: sd.LayerNorm(sd.LSTM(1)), "LayerNorm.cell 1 unit at least 2"),
        (lambda: sd.Zoneout(sd.LSTM(3), rate=1.0), "Zoneout.rate 1.0 below 1"),
        (lambda: valid(sd.Zoneout(sd.LSTM(3)), dropout="zoneout"), "dropout 'zoneout' Zoneout layers"),
        (lambda: valid(sd.LayerNorm(sd.LSTM(3)), normalise="layer"), "normalise 'layer' LayerNorm layers"),
        (lambda: valid(sd.LayerNorm(sd.RNN(3)), penalties=("omega",)), "omega LayerNorm(RNN)"),
        (lambda: valid(sd.LayerNorm(sd.RNN(3)), floss=1), "floss 1 LayerNorm(RNN)"),
        (lambda: valid(sd.GRU(3), monte_carlo=2), "monte_carlo 2 'none'"),
        (lambda: stacks.stack(sd.Spec(layers=(sd.LayerNorm(sd.GRU(3)),)), "PyTorch", ("gru",)), "PyTorch LayerNorm"),
        (
            lambda: stacks.stack(sd.Spec(layers=(sd.Zoneout(sd.GRU(3)),)), "PyTorch", ("gru",), out=True),
            "PyTorch Zoneout",
        ),
        (
            lambda: sd.Experiment("x", sd.Spec(layers=(sd.Zoneout(sd.GRU(3)),)), updates=2, probes=("units",)),
            "units Zoneout gates",
        ),
        (lambda: valid(Alone(3)), "layers[0] Alone noise() build_training()"),
        (lambda: valid(Lacking(3)), "layers[0] Lacking build_training() alone noise()"),
        (lambda: valid(Longer(3)), "Longer noise 2 5 same"),
        (lambda: valid(Named(3)), "Named noise dict array"),
        (lambda: valid(Short(3)), "Short noise (3, 3) (2, 3,"),
        (lambda: valid(Other(3)), "layers[0] Other build_training parameters"),
    ],
)
def test_what_does_not_fit_is_one_sentence(made, words):
    sentence = refusal(made)
    assert all(word.strip("'") in sentence for word in words.split(" ")), sentence


def test_what_drops_in_training_alone_is_its_cell_elsewhere():
    plain, around = (sd.Spec(layers=(level,)) for level in (sd.GRU(3), sd.RecurrentDropout(sd.GRU(3), 0.2)))
    assert stacks.stack(plain, "PyTorch", ("gru",), out=True) == stacks.stack(around, "PyTorch", ("gru",), out=True)


def test_a_number_of_ones_own_may_be_called_noise():
    e = valid(Numbered(3, noise=0.3))
    assert not dropout.drops(e.specs[0]) and e.specs[0].hidden == (3,)


def test_monte_carlo_takes_levels_that_are_random():
    assert valid(sd.Zoneout(sd.GRU(3), 0.2), monte_carlo=2).specs[0].monte_carlo == 2
