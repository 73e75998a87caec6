"""Laws of `seqdyn.learn.config`: grids, one sentence for every wrong input, and experiments that survive JSON."""

import dataclasses
import json
import math
import re
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refusals import refusal

from seqdyn.data.tasks import TASKS
from seqdyn.fields import TaskName
from seqdyn.learn.config import LATER, Experiment, Spec, experiment_from, grid
from seqdyn.learn.train import training_batch
from seqdyn.nets.activations import ACTIVATIONS, Activation
from seqdyn.nets.inits import INITS, InitName
from seqdyn.numbers import Numbers
from seqdyn.types import ConfigError

X64 = False
TEXT = dict(task="labelled", vocabulary=100, embedding=8)


def experiment(*specs, **changes):
    fields = dict(name="x", specs=specs or (Spec(),), numbers=grid(seeds=2), updates=40, chunk=10, probe_every=20)
    return Experiment(**{**fields, **changes})


def test_a_penaltys_weight_needs_a_spec_that_heeds_it():
    with pytest.raises(ConfigError, match="omega is 2; no spec has 'omega' among its penalties"):
        experiment(numbers=grid(omega=2.0))
    experiment(Spec(penalties=("omega",)), numbers=grid(omega=2.0))


# --- grids --------------------------------------------------------------------------------------------------


def test_what_decides_code_is_no_axis():
    assert "steps decides code" in refusal(grid, Spec(), steps=[10, 20])
    assert "cell decides code" in refusal(grid, cell=["rnn"])
    assert len(grid(Spec(dropout="outputs"), dropout=[0.1, 0.2])) == 2  # a word and a number share this name


def test_grid_is_the_cartesian_product_with_seeds_fastest_and_the_last_named_axis_next():
    numbers = grid(seeds=2, gain=[0.5, 1.0], clip=[1.0, math.inf, 3.0], lr=1e-2)
    assert len(numbers) == 12
    np.testing.assert_array_equal(numbers.seed, [0, 1] * 6)
    np.testing.assert_array_equal(numbers.clip, [1, 1, math.inf, math.inf, 3, 3] * 2)
    np.testing.assert_array_equal(numbers.gain, [0.5] * 6 + [1.0] * 6)
    np.testing.assert_array_equal(numbers.lr, [1e-2] * 12)


def test_grid_leaves_what_is_not_named_at_its_default():
    numbers = grid(seeds=[7, 5], lr=[1e-2])
    np.testing.assert_array_equal(numbers.seed, [7, 5])
    for f in dataclasses.fields(Numbers):
        if f.name not in ("seed", "lr"):
            np.testing.assert_array_equal(getattr(numbers, f.name), [f.default] * 2)


@pytest.mark.parametrize("axis", [[0.1, 0.2], (0.1, 0.2), np.array([0.1, 0.2]), jnp.asarray([0.1, 0.2])], ids=type)
def test_an_axis_may_be_any_sequence(axis):
    np.testing.assert_allclose(grid(lr=axis).lr, [0.1, 0.2])


@pytest.mark.parametrize(
    "seeds",
    [range(2), (0, 1), np.arange(2), np.int64(2)],
    ids=["range", "tuple", "array", "integer"],
)
def test_seeds_may_be_any_sequence_or_count(seeds):
    np.testing.assert_array_equal(grid(seeds=seeds).seed, [0, 1])


def test_at_takes_one_run_or_some_and_arrays_have_the_types_of_a_step():
    numbers = grid(seeds=3, lr=[1e-3, 1e-2])
    assert numbers.at(4).lr == 1e-2 and numbers.at(4).seed == 1
    assert len(numbers.at(slice(2, 5))) == 3
    arrays = numbers.arrays()
    for f in dataclasses.fields(Numbers):
        assert getattr(arrays, f.name).dtype == (jnp.int32 if f.name in ("seed", "window") else jnp.float32)


def test_numbers_are_a_pytree_of_all_their_fields():
    assert len(jax.tree.leaves(Numbers())) == len(dataclasses.fields(Numbers))


# --- names and literals -------------------------------------------------------------------------------------


def test_literals_name_what_there_is():
    assert set(get_args(Activation)) == set(ACTIVATIONS)
    assert set(get_args(InitName)) == set(INITS)
    assert set(get_args(TaskName)) == set(TASKS)


@pytest.mark.parametrize("spec", [Spec(), Spec(cell="lstm"), Spec(cell="gru_reset_before"), Spec(**TEXT)])
def test_a_spec_is_hashable_and_equal_by_value(spec):
    assert hash(spec) == hash(dataclasses.replace(spec)) and spec == dataclasses.replace(spec)
    assert spec != dataclasses.replace(spec, batch=31)


def test_labels_tell_cells_and_activations_apart():
    specs = [Spec(activation=a) for a in ACTIVATIONS] + [Spec(cell=c) for c in ("lstm", "gru", "gru_reset_before")]
    assert len({s.label for s in specs}) == len(specs)


def test_specs_of_one_label_are_named_by_what_tells_them_apart():
    of = [Spec(steps=50), Spec(steps=100), Spec(cell="lstm", hidden=(8, 4)), Spec(cell="lstm", dtype="bfloat16")]
    expected = ["rnn tanh, steps 50", "rnn tanh, steps 100", "lstm, hidden 8 + 4, dtype float32"]
    expected.append("lstm, hidden 32, dtype bfloat16")
    words = Experiment("words", of, updates=1)
    assert [spec.label for spec in words.specs] == expected
    grids = Experiment("grids", [grid(spec, seeds=2) for spec in of], updates=1)
    assert [spec.label for spec in grids.specs] == expected == [runs.label for runs in grids.runs]
    assert [spec.label for spec in dataclasses.replace(grids, updates=2).specs] == expected
    assert [spec.label for spec in Experiment("alone", of[1:3], updates=1).specs] == ["rnn tanh", "lstm"]


# --- wrong input --------------------------------------------------------------------------------------------


def says(error, *words):
    sentence = str(error.value)
    for word in words:
        assert word in sentence
    assert sentence[-1] == "." and "\n" not in sentence


def cases(rows):
    """One test a row (changes, words its sentence must have)."""
    return [pytest.param(changes, words, id=f"{'-'.join(changes)}-{i}") for i, (changes, words) in enumerate(rows)]


WRONG_AXES = [
    (dict(learning_rate=1.0), ["learning_rate", "lr"]),
    (dict(seed=3), ["'seed'", "seeds"]),
    (dict(lr=[]), ["lr", "at least one"]),
    (dict(lr=math.nan), ["lr", "nan", "finite"]),
    (dict(lr=math.inf), ["lr", "inf", "finite"]),
    (dict(gain=[1.0, -math.inf]), ["gain", "-inf", "finite"]),
    (dict(lr=-1e-3), ["lr", "-0.001", "greater than 0"]),
    (dict(lr=0.0), ["lr", "0.0", "greater than 0"]),
    (dict(lr=True), ["lr", "True", "number"]),
    (dict(lr="1e-3"), ["lr", "'1e-3'", "number"]),
    (dict(lr=None), ["lr", "None", "number"]),
    (dict(lr=[[1.0, 2.0]]), ["lr", "number"]),
    (dict(lr=1j), ["lr", "1j", "number"]),
    (dict(clip=0), ["clip", "0", "greater than 0"]),
    (dict(clip=-math.inf), ["clip", "-inf", "greater than 0"]),
    (dict(clip=math.nan), ["clip", "nan"]),
    (dict(gain=-0.5), ["gain", "-0.5", "at least 0"]),
    (dict(momentum=1.5), ["momentum", "1.5", "between 0 and 1"]),
    (dict(momentum=-0.1), ["momentum", "-0.1", "between 0 and 1"]),
    (dict(decay_rate=2), ["decay_rate", "2", "between 0 and 1"]),
    (dict(decay_steps=0), ["decay_steps", "0", "greater than 0"]),
    (dict(warmup=-1), ["warmup", "-1", "at least 0"]),
    (dict(weight_decay=-1), ["weight_decay", "-1", "at least 0"]),
    (dict(longest=2), ["longest", "2", "more than 2"]),
    (dict(forget_bias=math.inf), ["forget_bias", "inf", "finite"]),
    (dict(window=0), ["window", "0", "greater than 0"]),
    (dict(window=2.5), ["window", "2.5", "whole number"]),
    (dict(window=2**31), ["window", "2147483648", "whole number"]),
    (dict(seeds=0), ["seed", "at least one"]),
    (dict(seeds=[]), ["seed", "at least one"]),
    (dict(seeds=[-1]), ["seed", "-1", "at least 0"]),
    (dict(seeds=[1, 0, 1]), ["seed", "1 twice", "once"]),
    (dict(gain=[1.0, np.float32(1.0)]), ["gain", "1.0 twice", "once"]),
    (dict(gain=[0.3, 0.1 + 0.2]), ["gain", "0.3 twice", "once"]),  # one number of 32 bits
    (dict(seeds=[0.5]), ["seed", "0.5", "whole number"]),
    (dict(seeds=[2**31]), ["seed", "2147483648", "whole number"]),
    (dict(lr=[True, 1.0]), ["lr", "True", "number"]),
    (dict(lr=[[1.0], [1.0, 2.0]]), ["lr", "number"]),
    (dict(seeds=True), ["seed", "True"]),
    (dict(seeds=2.5), ["seed", "2.5"]),
    (dict(lr=1e39), ["lr", "1e+39"]),
    (dict(lr=1e-50), ["lr", "1e-50"]),
    (dict(clip=1e-50), ["clip", "1e-50"]),
]


@pytest.mark.parametrize("axes, words", cases(WRONG_AXES))
def test_a_wrong_axis_is_named_with_its_value_and_what_is_right(axes, words):
    with pytest.raises(ConfigError) as error:
        grid(**axes)
    says(error, *words)


@pytest.mark.parametrize(
    "axes",
    [
        dict(clip=math.inf),
        dict(gain=0.0),
        dict(momentum=[0.0, 1.0]),
        dict(forget_bias=-3.0),
        dict(seeds=[2**31 - 1]),
        dict(warmup=0, weight_decay=0),
        dict(longest=2.01),
    ],
    ids=str,
)
def test_the_edge_of_what_is_right_is_right(axes):
    assert len(grid(**axes)) >= 1


WRONG_SPECS = [
    (dict(task="sorting"), ["task", "'sorting'", "adding"]),
    (dict(cell="elman"), ["cell", "'elman'", "rnn, lstm, gru"]),
    (dict(activation="swish"), ["activation", "'swish'", "tanh"]),
    (dict(w_init="he"), ["w_init", "'he'", "orthogonal"]),
    (dict(u_init="he"), ["u_init", "'he'", "orthogonal"]),
    (dict(optimizer="lamb"), ["optimizer", "'lamb'", "adam"]),
    (dict(schedule="step"), ["schedule", "'step'", "cosine"]),
    (dict(clip="l1"), ["clip", "'l1'", "norm, value, adjoint"]),
    (dict(readout="max"), ["readout", "'max'", "last, mean, sum"]),
    (dict(steps=1), ["steps", "1", "at least 2"]),
    (dict(steps=0), ["steps", "0"]),
    (dict(steps=10.0), ["steps", "10.0", "whole number"]),
    (dict(steps=True), ["steps", "True", "whole number"]),
    (dict(batch=0), ["batch", "0", "at least 1"]),
    (dict(batch=-4), ["batch", "-4", "at least 1"]),
    (dict(holdout=0), ["holdout", "0", "at least 1"]),
    (dict(training_set=33), ["training_set", "33", "multiple of batch, 32"]),
    (dict(training_set=-32), ["training_set", "-32", "at least 0"]),
    (dict(training_set=False), ["training_set", "False", "whole number"]),
    (dict(training_set=32, **TEXT), ["training_set", "32", "labelled"]),
    (dict(hidden=()), ["hidden", "empty"]),
    (dict(hidden=(8, 0)), ["hidden", "0", "at least 1"]),
    (dict(hidden=(8.5,)), ["hidden", "8.5", "whole number"]),
    (dict(hidden=8), ["hidden", "8"]),
    (dict(hidden=[8.5]), ["hidden", "8.5"]),
    (dict(vocabulary=1, task="labelled"), ["vocabulary", "1", "2 or more"]),
    (dict(chrono=True), ["chrono", "rnn", "lstm or gru"]),
    (dict(chrono="no", cell="lstm"), ["chrono", "'no'"]),
    (dict(truncate="no"), ["truncate", "'no'"]),
    (dict(vocabulary=100), ["vocabulary", "100", "synthetic"]),
    (dict(features=3), ["features", "3", "synthetic"]),
    (dict(embedding=8), ["embedding", "8", "only ids"]),
    (dict(vocabulary=-5, embedding=-5), ["vocabulary", "-5"]),
    (dict(task="labelled"), ["vocabulary", "features", "ids or numbers"]),
    (dict(task="labelled", vocabulary=100, features=2), ["vocabulary is 100", "features is 2", "ids or numbers"]),
    (dict(task="labelled", features=2, embedding=8), ["embedding", "8", "only ids"]),
    (dict(task="labelled", features=2, classes=1), ["classes is 1", "2 or more"]),
    (dict(task="labelled", features=2, classes=-3), ["classes", "-3"]),
    (dict(task="labelled", features=2, readout="every", augment=("jitter",)), ["augment", "readout is 'every'"]),
    (dict(task="labelled", features=2, pad="left"), ["pad", "left", "before, after"]),
    (dict(task="labelled", features=2, mask=1), ["mask", "1", "True or False"]),
    (dict(task="labelled", vocabulary=100, pretrained=True), ["pretrained", "embedding"]),
    (dict(task="copy", steps=30), ["readout", "last", "copy", "every"]),
    (dict(task="copy", steps=20, readout="every"), ["steps", "20", "21"]),
    (dict(task="temporal_order", steps=9), ["steps", "9", "10"]),
    (dict(task="temporal_order", steps=30, shortest=9), ["shortest", "9", "10"]),
    (dict(steps=30, shortest=31), ["shortest", "31", "30"]),
    (dict(task="delayed_xor", shortest=5), ["shortest", "5", "delayed_xor", "0"]),
    (dict(penalties=("l2", "l2")), ["penalties", "l2", "omega"]),
    (dict(penalties=("l3",)), ["penalties", "l3", "l1"]),
    (dict(penalties=None), ["penalties", "None", "tuple"]),
    (dict(penalties="l1"), ["penalties", "'l1'", "tuple"]),
    (dict(cell="lstm", penalties=("omega",)), ["penalties", "omega", "lstm", "rnn"]),
    (dict(normalise="batches"), ["normalise", "'batches'", "batch_drive"]),
    (dict(normalise="layer", cell="dense"), ["normalise", "layer", "dense"]),
    (dict(normalise="batch", shortest=5), ["normalise", "batch", "shortest"]),
    (dict(task="next_step", features=8), ["readout", "last", "next_step", "every"]),
    (dict(task="next_step", vocabulary=8, readout="every"), ["vocabulary", "8", "next_step"]),
    (dict(task="next_step", features=8, readout="every", bidirectional=True), ["bidirectional", "next_step"]),
    (dict(task="stream", features=8, readout="every"), ["features", "8", "stream"]),
    (dict(task="stream", vocabulary=8, readout="every", cell="dense_per_position"), ["dense_per_position", "stream"]),
    (dict(cell="dense", bidirectional=True), ["bidirectional", "dense"]),
    (dict(dropout="everywhere"), ["dropout", "everywhere", "inputs"]),
    (dict(name=3), ["name", "3"]),
    (dict(floss=-1), ["floss", "-1", "at least 0"]),
    (dict(floss=True), ["floss", "True", "whole number"]),
    (dict(floss_steps=0), ["floss_steps", "0", "at least 1"]),
    (dict(floss=33), ["floss", "33", "at most 32"]),
    (dict(floss=65, cell="lstm"), ["floss", "65", "at most 64"]),
    (dict(floss=4, hidden=(8, 8)), ["floss", "4", "one rnn, lstm or gru"]),
    (dict(floss=4, bidirectional=True), ["floss", "4", "one rnn, lstm or gru"]),
    (dict(floss=4, cell="dense"), ["floss", "4", "dense"]),
    (dict(floss=4, normalise="layer"), ["floss", "4", "not normalised"]),
    (dict(floss=4, activation="relu"), ["floss", "4", "relu", "smooth"]),
    (dict(task="labelled", vocabulary=2.5, embedding=8), ["vocabulary", "2.5"]),
]


@pytest.mark.parametrize("fields, words", cases(WRONG_SPECS))
def test_a_wrong_spec_is_named_with_its_value_and_what_is_right(fields, words):
    with pytest.raises(ConfigError) as error:
        experiment(Spec(**fields))
    says(error, *words)


LSTM = Spec(cell="lstm")
FIXED = Spec(training_set=64)
WRONG_EXPERIMENTS = [
    (dict(probe_every=15), ["probe_every", "15", "chunk", "10"]),
    (dict(updates=15), ["probe_every", "20", "updates", "15"]),
    (dict(updates=5), ["chunk", "10", "updates", "5"]),
    (dict(updates=0), ["updates", "0", "at least 1"]),
    (dict(updates=40.0), ["updates", "40.0", "whole number"]),
    (dict(chunk=0), ["chunk", "0", "at least 1"]),
    (dict(probe_every=True), ["probe_every", "True", "whole number"]),
    (dict(tile=0), ["tile", "0", "at least 1"]),
    (dict(specs=()), ["specs", "empty"]),
    (dict(specs=(Spec(), Spec())), ["rnn tanh", "must differ"]),
    (dict(specs=(Spec(name="a"), Spec(name="a", hidden=(8,)))), ["'a'", "must differ"]),
    (dict(specs=(Spec(), Spec(cell="lstm", **TEXT))), ["task", "'labelled'", "'adding'"]),
    (dict(specs=(Spec(cell="dense"),), probes=("weights",)), ["probes", "weights", "dense", "no recurrence"]),
    (dict(numbers=grid(dropout=0.5)), ["dropout", "0.5", "no spec"]),
    (dict(numbers=grid(thaw=10)), ["thaw", "10", "no spec"]),
    (dict(specs=(Spec(), Spec(cell="lstm", batch=0))), ["batch", "0"]),
    (dict(numbers=Numbers()), ["numbers", "grid"]),
    (dict(numbers=dataclasses.replace(grid(seeds=2), lr=np.asarray([-1.0, 1.0]))), ["lr", "-1.0"]),
    (dict(numbers=dataclasses.replace(grid(seeds=2), lr=np.asarray([1e-3]))), ["lr"]),
    (dict(settings={"split": {1, 2}}), ["settings"]),
    (dict(probes=("weight",)), ["probes", "weight", "jacobians"]),
    (dict(probes="weights"), ["probes", "tuple"]),
    (dict(probes=("weights", "weights")), ["probes", "once"]),
    (dict(diagnostic=0), ["diagnostic", "0", "at least 1"]),
    (dict(modes=2.5), ["modes", "2.5", "whole number"]),
    (dict(diagnostic_from="test"), ["diagnostic_from", "'test'", "holdout, train"]),
    (dict(diagnostic_from="train"), ["diagnostic_from", "training_set is 0"]),
    (dict(specs=(FIXED,), diagnostic_from="train", diagnostic=65), ["diagnostic", "65", "64"]),
    (dict(specs=(FIXED, LSTM)), ["training_set", "0", "64"]),
]


@pytest.mark.parametrize("changes, words", cases(WRONG_EXPERIMENTS))
def test_a_wrong_experiment_is_named_with_its_value_and_what_is_right(changes, words):
    with pytest.raises(ConfigError) as error:
        experiment(**changes)
    says(error, *words)


@pytest.mark.parametrize(
    "given, chunk, probe_every",
    [
        (dict(updates=7), 7, 7),
        (dict(updates=1000), 100, 100),
        (dict(updates=2020), 20, 120),
        (dict(updates=5000), 100, 500),
        (dict(updates=5003), 100, 500),  # a prime
        (dict(updates=5300), 100, 300),  # of 53 calls, a prime
        (dict(updates=5003, chunk=10), 10, 250),
        (dict(updates=5003, probe_every=500), 100, 500),
        (dict(updates=1010, probe_every=101), 101, 101),
        (dict(updates=10006, probe_every=5003), 1, 5003),
    ],
)
def test_updates_are_enough(given, chunk, probe_every):
    """Calls are not much shorter than they may be and looks neither few nor many, whatever divides the updates."""
    made = Experiment("x", Spec(), **given)
    assert (made.chunk, made.probe_every) == (chunk, probe_every)


# --- there and back -----------------------------------------------------------------------------------------

FULL = [
    experiment(),
    experiment(Spec(hidden=(8, 4)), Spec(cell="lstm", hidden=(4, 4), chrono=True, clip="adjoint", truncate=True)),
    experiment(Spec(**TEXT), numbers=grid(seeds=[3, 9], clip=[1.0, math.inf], lr=[1e-3, 0.1], window=7), tile=4),
    experiment(Spec(training_set=64), probes=("units", "lyapunov"), diagnostic=64, diagnostic_from="train", modes=3),
    experiment(settings={"vocabulary": 100, "pad": "before", "limit": None, "scale": 0.1}),
]


@pytest.mark.parametrize("whole", FULL, ids=lambda e: e.specs[0].label)
def test_an_experiment_comes_back_from_json_as_it_was(whole):
    text = json.dumps(whole.describe(), allow_nan=False)
    again = experiment_from(json.loads(text))
    assert again.describe() == whole.describe() and again.specs == whole.specs
    assert json.dumps(again.describe()) == text
    for f in dataclasses.fields(Numbers):
        np.testing.assert_array_equal(getattr(again.numbers, f.name), getattr(whole.numbers, f.name))
    assert (again.updates, again.chunk, again.probe_every, again.tile) == (
        whole.updates,
        whole.chunk,
        whole.probe_every,
        whole.tile,
    )


def test_a_description_equals_itself_read_from_json_whatever_its_settings():
    """A manifest is compared after JSON: a tuple there would make a run refuse its own directory."""
    described = experiment(settings={"range": (1, 2), 3: "three"}).describe()
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize(
    "changes",
    [
        dict(name="y"),
        dict(specs=(Spec(w_init="uniform"),)),
        dict(numbers=grid(seeds=2, gain=0.9)),
        dict(numbers=grid(seeds=[1, 0])),
        dict(updates=80),
        dict(chunk=5),
        dict(probe_every=40),
        dict(tile=8),
        dict(settings={"a": 1}),
    ],
    ids=str,
)
def test_descriptions_differ_where_experiments_do(changes):
    assert experiment(**changes).describe() != experiment().describe()


def test_a_spec_has_numbers_of_its_own():
    slow = Spec(numbers=Numbers(lr=0.1))
    (runs,) = Experiment("x", slow, updates=1).runs
    assert runs.numbers.lr.tolist() == [0.1] and runs.numbers.seed.tolist() == [0]
    crossed = Experiment("x", slow, grid(seeds=2, gain=[0.5, 2.0]), updates=1)
    assert crossed.numbers.lr.tolist() == [0.1] * 4 and crossed.numbers.gain.tolist() == [0.5, 0.5, 2.0, 2.0]
    assert grid(slow, seeds=2).numbers.lr.tolist() == [0.1, 0.1]
    assert grid(slow, lr=[0.2]).numbers.lr.tolist() == [0.2]
    assert Experiment("x", grid(slow), updates=1).describe()["hypers"][0]["lr"] == [0.1]
    assert grid(slow, seeds=2) == grid(slow, seeds=2) != grid(slow, seeds=3) and len({slow, grid(slow), Spec()}) == 3
    two = Experiment("x", (slow, Spec(cell="lstm")), updates=1)
    assert [one.numbers.lr.tolist() for one in two.runs] == [[0.1], [1e-3]] and two.numbers is None
    for one in (crossed, two):
        again = experiment_from(json.loads(json.dumps(one.describe())))
        assert again.describe() == one.describe() == dataclasses.replace(one, updates=1).describe()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Experiment("x", Spec(numbers=Numbers(lr=0.1)), grid(lr=[0.2, 0.3]), updates=1), ["lr", "0.1"]),
        (lambda: Experiment("x", Spec(numbers=Numbers(lr=-0.1)), updates=1), ["lr", "-0.1", "greater than 0"]),
        (lambda: Experiment("x", Spec(numbers=Numbers(lr=[0.1, 0.2])), updates=1), ["lr", "grid"]),
        (lambda: Experiment("x", Spec(numbers=Numbers(lr=0.1)), grid(lr=[1e-3, 0.1]), updates=1), ["lr", "0.1"]),
        (lambda: Experiment("x", Spec(numbers=Numbers(seed=np.arange(2))), updates=1), ["numbers.lr", "()", "grid"]),
        (lambda: Spec(numbers=Numbers(lr="fast")), ["numbers.lr", "'fast'", "a number"]),
        (lambda: grid(Spec(), **{"numbers.seed": [1, 2]}), ["seed", "seeds"]),
        (lambda: training_batch(grid(Spec(), seeds=2), None, 0), ["2 runs", "at(i)"]),
        (lambda: Spec(numbers={"lr": 0.1}), ["numbers", "lr", "Numbers"]),
        (lambda: Experiment("x", (grid(Spec()), Spec(cell="lstm")), updates=1), ["grid", "Spec"]),
    ],
    ids=[
        "twice",
        "range",
        "several",
        "mixed",
        "one column",
        "text",
        "seed",
        "a batch of two runs",
        "a dict",
        "beside a grid",
    ],
)
def test_numbers_that_a_spec_cannot_have_are_named(make, words):
    sentence = refusal(make)
    assert all(word in sentence for word in words), sentence


def test_every_field_is_described():
    described = dataclasses.replace(experiment(), keep="log", lags="log").describe()
    assert set(described) == {f.name for f in dataclasses.fields(Experiment)} - {"runs", "ruled", "numbers"} | {
        "hypers"
    }
    assert set(described["specs"][0]) == {f.name for f in dataclasses.fields(Spec)} - {*LATER, "decided", "numbers"}
    assert set(described["hypers"]) == {f.name for f in dataclasses.fields(Numbers)}


# --- what has one meaning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, same",
    [
        (dict(hidden=(np.int32(4), np.uint8(3))), dict(hidden=(4, 3))),
        (dict(hidden=[4, 3]), dict(hidden=(4, 3))),
        (dict(hidden=np.array([4, 3])), dict(hidden=(4, 3))),
        (dict(steps=np.int64(20), batch=np.array(4), holdout=jnp.int32(8)), dict(steps=20, batch=4, holdout=8)),
        (dict(task="labelled", features=3, classes=np.int64(3)), dict(task="labelled", features=3, classes=3)),
        (dict(truncate=np.True_), dict(truncate=True)),
        (dict(cell=np.str_("gru"), penalties=["l2"]), dict(cell="gru", penalties=("l2",))),
    ],
)
def test_a_spec_of_numpys_values_is_that_of_pythons(fields, same):
    one, two = experiment(Spec(**fields)), experiment(Spec(**same))
    assert one.specs == two.specs and hash(one.specs) == hash(two.specs)
    assert json.dumps(one.describe()) == json.dumps(two.describe())


def test_an_experiment_of_numpys_values_is_that_of_pythons():
    numbers = dict(updates=np.int64(40), chunk=np.uint8(10), probe_every=jnp.int32(20), tile=np.int16(2))
    one = experiment(numbers=grid(np.array(2), window=np.float64(5)), settings={"n": np.int64(3)}, **numbers)
    two = experiment(numbers=grid(2, window=5), settings={"n": 3}, tile=2)
    assert json.dumps(one.describe()) == json.dumps(two.describe()) and hash(one.probe_config) == hash(two.probe_config)


def test_one_spec_a_list_and_no_grid_have_one_meaning():
    plain = experiment(numbers=grid()).describe()
    assert experiment(numbers=None).describe() == plain
    for specs in (Spec(), [Spec()]):
        assert experiment(specs=specs, numbers=grid(), probes=["weights"]).describe() == plain


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(specs="rnn"), ["specs", "'rnn'", "Spec"]),
        (dict(specs=(Spec(), None)), ["specs", "None", "Spec"]),
        (dict(specs=None), ["specs", "None", "Spec"]),
        (dict(specs=[]), ["specs", "empty"]),
        (dict(numbers={"lr": 1.0}), ["numbers", "grid"]),
        (dict(numbers=dataclasses.replace(grid(seeds=2), lr=[[1.0], [1.0, 2.0]])), ["numbers.lr", "no array"]),
        (dict(probes=("weights", ["units"])), ["probes", "names among"]),
        (dict(specs=Spec(penalties=([],))), ["penalties", "((),)"]),
        (dict(specs=Spec(cell=("rnn",))), ["cell", "('rnn',)"]),
        (dict(specs=Spec(steps=2**31)), ["steps", "2³¹"]),
        (dict(name=None), ["name", "None", "string"]),
        (dict(settings=[1]), ["settings", "[1]", "dict"]),
    ],
    ids=lambda v: "" if isinstance(v, dict) else " ".join(v),
)
def test_values_of_another_type_are_one_sentence(changes, words):
    sentence = refusal(experiment, **changes)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize("kind", ["batch", "batch_drive"])
def test_the_statistics_of_one_value_are_refused(kind):
    assert "batch is 1" in refusal(experiment, Spec(normalise=kind, batch=1))
    experiment(Spec(normalise=kind, batch=2))
    assert "hidden is (4, 1)" in refusal(experiment, Spec(normalise="layer", hidden=(4, 1)))


def test_a_row_of_a_table_is_a_sequence_of_one_step():
    row = Spec("labelled", steps=1, features=3)
    experiment(row)
    assert "jacobians" in refusal(experiment, row, probes=("jacobians",))
    assert "steps is 1" in refusal(experiment, Spec(steps=1))


@pytest.mark.parametrize(
    "name, heeding",
    [
        ("forget_bias", dict(cell="lstm")),
        ("longest", dict(cell="gru", chrono=True)),
        ("momentum", dict(optimizer="rmsprop")),
        ("decay_steps", dict(schedule="inverse")),
        ("decay_rate", dict(schedule="exponential")),
        ("window", dict(truncate=True)),
        ("norm_gain", dict(normalise="layer")),
        ("l2", dict(penalties=("l2",))),
        ("dropout", dict(dropout="inputs")),
    ],
)
def test_an_axis_along_which_all_runs_would_be_the_same_is_refused(name, heeding):
    values = {"longest": [5.0, 9.0], "window": [5, 9]}.get(name, [0.25, 0.5])
    said = refusal(lambda: grid(Spec(steps=6), **{name: values}))
    assert said.startswith(f"{name} is {values}") and "would differ" in said
    assert len(grid(Spec(steps=6, **heeding), **{name: values})) == 2
    assert len(grid(Spec(steps=6), **{name: values[1]})) == 1  # of one value there is nothing to be told apart


def test_experiments_are_equal_where_they_describe_the_same(tmp_path):
    def made(**others):
        return Experiment("a", Spec(steps=4, batch=2), grid(3, **others), updates=4)

    assert made() == made() and hash(made()) == hash(made()) and made() != made(gain=[0.5, 1.0])
    assert grid(2) == grid(2) != grid(3) and hash(grid(2)) == hash(grid(2)) and grid(2) != 2


@pytest.mark.parametrize("value", [[1.0], {}, np.ones(2)], ids=repr)
@pytest.mark.parametrize("of", [(), (Spec(),)], ids=["numbers", "spec"])
def test_a_value_of_an_axis_that_is_no_number_is_named(value, of):
    assert re.fullmatch("gain is .*; it must be a number.", refusal(grid, *of, gain=[value]))


def test_an_axis_may_be_any_iterator():
    for values in (iter([0.5, 1.0]), (gain for gain in (0.5, 1.0)), map(float, ("0.5", "1"))):
        assert grid(Spec(), gain=values).numbers.gain.tolist() == [0.5, 1.0]
