"""Laws of users' rules and losses in a `Spec`: a clip and a schedule with the library's rule, chains, weights."""

import dataclasses
from functools import cache, partial

import _training
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _refusals import refusal
from _rules import (
    Every,
    Falling,
    Gently,
    Halves,
    Huber,
    Near,
    PerTensor,
    Polyak,
    Searching,
    Shaken,
    Weighted,
    Whole,
    absolute,
    falling,
)
from _training import having

import seqdyn as sd
from seqdyn import grids
from seqdyn.backend import compiled
from seqdyn.data.check import check
from seqdyn.data.tasks import task_of
from seqdyn.data.text import Examples
from seqdyn.learn import model, optim, train, verify
from seqdyn.measure import broken, updates
from seqdyn.runs import sweep
from seqdyn.runs.traced import check_traces

X64 = False
WORD = sd.Spec(steps=6, hidden=(3,), batch=4, holdout=4)


@cache
def _step(spec):
    return compiled(train.step)


def three(spec, **numbers):
    """(parameters before, after, metrics [3]) of three updates from one state on one batch."""
    h, bare = sd.Numbers(**numbers).arrays(), dataclasses.replace(WORD, optimizer="sgd")
    _, state, batch = _training.scene(bare)
    of, before, said = grids.arrays(spec), state.params, []
    with jax.numpy_dtype_promotion("standard"):
        state = state._replace(opt=optim.rule(having(of, h)).init(before))
        for _ in range(3):
            state, metrics = _step(spec)(having(of, h), state, batch)
            said.append(metrics)
    found = jax.tree.map(np.asarray, state.params)
    return before, found, jax.tree.map(lambda *values: np.stack(values), *said)


def close(one, other, rtol=1e-5, atol=1e-6):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), one, other)


# --- rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, chain, numbers",
    [
        (
            dict(optimizer="adam", schedule="cosine"),
            (sd.ClipByNorm(0.05), sd.Adam(0.02, sd.Cosine(9.0, warmup=2.0))),
            dict(lr=0.02, clip=0.05, decay_steps=9.0, warmup=2.0),
        ),
        (
            dict(optimizer="adamw", clip="value"),
            (sd.ClipByValue(0.02), sd.AdamW(0.02, weight_decay=0.5)),
            dict(lr=0.02, clip=0.02, weight_decay=0.5),
        ),
    ],
    ids=["adam", "adamw"],
)
def test_a_chain_of_the_librarys_links_is_what_the_words_say(words, chain, numbers):
    _, word, said = three(dataclasses.replace(WORD, **words), **numbers)
    _, part, reported = three(dataclasses.replace(WORD, optimizer=chain))
    close(word, part)
    for name in ("clip_scale", "clipped", "learning_rate", "loss"):
        np.testing.assert_allclose(said[name], reported[name], rtol=1e-5)
    assert said["clip_scale"].max() < 1


def test_a_rule_that_asks_for_the_objective_is_given_it_with_penalties():
    spec = dataclasses.replace(WORD, optimizer=Polyak(), penalties=("l2",))
    before, _, said = three(spec, l2=0.1)
    step = np.linalg.norm(said["group_update_norm"], axis=1)
    value = said["loss"] + 0.1 * said["penalty_l2"]
    np.testing.assert_allclose(step, value / said["grad_norm"], rtol=1e-5)
    of = having(grids.arrays(spec), sd.Numbers(l2=0.1).arrays())
    _, state, batch = _training.scene(dataclasses.replace(WORD, optimizer="sgd"))
    state = state._replace(opt=optim.rule(of).init(state.params))
    jax.eval_shape(
        lambda s: (updates.next_updates(of, s, None), broken._stack(of, s, batch)), state
    )  # where it is asked
    fixed = three(dataclasses.replace(WORD, optimizer=sd.SGD(100.0)))[2]["loss"]
    searched = three(dataclasses.replace(WORD, optimizer=Searching()))[2]["loss"]
    assert fixed[1] > fixed[0] and (np.diff(searched) < 0).all()  # a step that is too long is made shorter


def test_a_rule_that_can_do_without_the_objective_is_given_it_too():
    """As a loop of optax would: whether an argument has a default says nothing of who passes it."""
    _, _, said = three(dataclasses.replace(WORD, optimizer=Falling()))
    moved = said["loss"][:, None] * said["group_grad_norm"]
    np.testing.assert_allclose(said["group_update_norm"], moved, rtol=1e-5)
    assert (said["loss"] != 1).all()


def test_an_update_of_several_gradients_is_one_of_their_mean():
    before, after, said = three(dataclasses.replace(WORD, optimizer=Every()))
    moved = said["group_update_norm"].sum(axis=1)
    assert moved[0] == moved[2] == 0 < moved[1]
    np.testing.assert_allclose(np.linalg.norm(said["group_update_norm"][1]), 0.1 * said["grad_norm"][0], rtol=1e-5)


@pytest.mark.slow
def test_a_function_of_a_module_is_a_loss_or_a_schedule(tmp_path):
    spec = dataclasses.replace(WORD, optimizer="sgd", loss=absolute, schedule=falling)
    _, _, said = three(spec, lr=0.01)
    np.testing.assert_allclose(said["learning_rate"], 0.01 / np.arange(1, 4), rtol=1e-6)
    runs = sd.grid(spec, lr=[0.01, 0.1])
    out = sd.run(sd.Experiment("functions", runs, updates=2), tmp_path / "out", verify=False)
    ds = sd.load(out)
    assert {*ds["spec_loss"].values, *ds["schedule"].values} == {"absolute", "falling"}
    np.testing.assert_array_equal(sd.replay(out, 1, 0, 2, record=["loss"])["loss"], ds["loss"][1])
    several = sd.Experiment("several", [dataclasses.replace(WORD, loss=of) for of in (absolute, None)], updates=1)
    assert [one.label for one in several.specs] == ["rnn tanh, loss absolute", "rnn tanh, loss None"]


def test_a_users_clip_and_schedule_go_with_the_librarys_rule_and_are_recorded():
    """The clip sees the parameters: what is left of each tensor is at most its share of them."""
    spec = dataclasses.replace(WORD, clip=PerTensor(0.05), schedule=Gently(), optimizer="sgd")
    before, after, said = three(spec, lr=0.5)
    rates = [0.5 * float(Gently().build()(n)) for n in range(3)]
    np.testing.assert_allclose(said["learning_rate"], rates, rtol=1e-6)
    sizes = np.asarray([[np.linalg.norm(w) for w in jax.tree.leaves(t)] for t in (before, after)])
    moved = np.asarray([np.linalg.norm(a - b) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)])
    assert (moved <= sum(rates) * 0.05 * np.maximum(sizes.max(axis=0), 0.1) * 1.001).all() and moved.min() > 0
    left = np.sqrt(np.sum(said["group_update_norm"] ** 2, axis=-1))[1:] / said["learning_rate"][1:]
    np.testing.assert_allclose(said["clip_scale"][1:], left / said["grad_norm"][1:], rtol=1e-5)
    assert said["clip_scale"].max() < 1 and (said["clipped"] > 0).all()


@pytest.mark.slow
def test_a_users_clip_leaves_a_frozen_embedding_out_as_the_librarys_does():
    words = dict(features=0, vocabulary=5, embedding=3, pretrained=True, optimizer="sgd")
    spec = labelled(2, 1, **words)
    data = {"train": (np.arange(6).reshape(2, 3) % 5, [3, 3], [0, 1])}
    data = {"train": jax.tree.map(jnp.asarray, Examples(*map(np.asarray, data["train"])))}
    numbers = sd.Numbers(lr=1.0, clip=0.1, thaw=9.0).arrays()
    state = _training.start(spec, {"vectors": jnp.ones((5, 3))})
    batch = task_of(spec).batch(data, "train", (jnp.arange(2), None))
    found = []
    clips = (dataclasses.replace(spec, clip=clip) for clip in (Whole(0.1), sd.ClipByNorm(0.1)))
    for of in (spec, *clips, dataclasses.replace(spec, clip="norm", optimizer=Polyak())):
        with jax.numpy_dtype_promotion("standard"):
            now = grids.arrays(of)
            begun = state._replace(opt=optim.rule(having(now, numbers)).init(state.params))
            moved, said = _step(of)(having(now, numbers), begun, batch)
        found.append((moved.params, said["clip_scale"], said["clipped"], said["group_update_norm"]))
    of_rest = np.linalg.norm(said["group_grad_norm"][1:]) * found[0][1]  # Polyak's, of what is trained alone
    np.testing.assert_allclose(np.linalg.norm(found[-1][3]), said["loss"] / of_rest, rtol=1e-5)
    assert found[0][3][0] == 0 and found[0][1] < 1
    np.testing.assert_allclose(np.linalg.norm(found[0][3]), 0.1, rtol=1e-5)
    for other in found[1:-1]:
        close(found[0], other)


def test_where_adjoints_are_clipped_the_records_of_clipping_are_theirs():
    chain = dict(optimizer=(sd.ClipByNorm(1e-3), sd.SGD(0.1)))
    _, free, _ = three(dataclasses.replace(WORD, clip="adjoint", **chain), clip=np.inf)
    _, bound, said = three(dataclasses.replace(WORD, clip="adjoint", **chain), clip=1e-3)
    assert said["clip_scale"].max() < 1 and (said["clipped"] > 0).all()
    np.testing.assert_allclose(np.sqrt(np.sum(said["group_update_norm"] ** 2, axis=-1)), 1e-4, rtol=1e-4)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(free), jax.tree.leaves(bound), strict=True))


def test_a_rule_of_ones_own_remembers_and_reports():
    spec = dataclasses.replace(WORD, optimizer=(sd.ClipByNorm(0.05), sd.ClipByValue(0.03), Halves(0.4)))
    _, _, said = three(spec)
    np.testing.assert_allclose(said["learning_rate"], [0.4, 0.2, 0.1], rtol=1e-6)
    left = np.sqrt(np.sum(said["group_update_norm"] ** 2, axis=-1)) / said["learning_rate"]
    np.testing.assert_allclose(said["clip_scale"], left / said["grad_norm"], rtol=1e-5)


def test_a_rule_that_is_random_draws_anew_at_each_update_and_for_each_seed():
    spec = dataclasses.replace(WORD, optimizer=Shaken())
    drawn = [three(spec, seed=seed)[2]["learning_rate"] for seed in (0, 1, 0)]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert len({*drawn[0].tolist(), *drawn[1].tolist()}) == 6


def test_a_part_and_a_word_give_a_proximal_step_the_same_rate():
    word = dataclasses.replace(WORD, penalties=("l1_proximal",))
    _, words, _ = three(word, lr=0.02, l1_proximal=3.0)
    _, parts, _ = three(dataclasses.replace(word, optimizer=sd.Adam(0.02)), l1_proximal=3.0)
    close(words, parts)
    assert any((leaf == 0).any() for leaf in jax.tree.leaves(parts.layers))


@pytest.mark.slow
def test_numbers_of_links_schedules_and_losses_are_axes_that_compile_nothing(tmp_path):
    schedule = sd.Cosine(9.0)
    spec = dataclasses.replace(WORD, loss=Near(0.5), optimizer=(sd.ClipByNorm(1.0), sd.Adam(schedule=schedule)))
    assert dataclasses.replace(spec, optimizer=[sd.Adam()]).optimizer == sd.Adam()

    def ran(name, **axes):
        e = sd.Experiment("rules", sd.grid(spec, **axes), updates=2, tile=2, probes=())
        return sd.load(sd.run(e, tmp_path / name, verify=False)).load()

    ds = ran("one", bound=[0.01, np.inf], decay_steps=4.0)
    programs = sweep.programs(spec, 1)
    known = [p._cache_size() for p in programs]
    other = ran("two", lr=[0.1, 0.2], delta=0.1, warmup=2.0, b1=0.5)
    assert [p._cache_size() for p in programs] == known
    assert ds.clip_scale[0].max() < 1 and (ds.clip_scale[1] == 1).all() and ds.bound.values.tolist() == [0.01, np.inf]
    assert other.learning_rate.values[:, 0].tolist() == np.float32([0.05, 0.1]).tolist()
    assert not np.array_equal(ds.loss[0, 0], other.loss[0, 0]) and (ds.accuracy >= other.accuracy).all()
    again = sd.Experiment("rules", sd.grid(spec, bound=[0.01, np.inf], decay_steps=4.0), updates=4, tile=2, probes=())
    went = sd.load(sd.run(again, tmp_path / "one", verify=False)).load()
    assert went.loss.shape == (2, 4) and np.array_equal(went.loss[:, :2], ds.loss)
    assert "delta is 0.5 there" in refusal(sd.run, with_loss(again, Near(0.25)), tmp_path / "one")


def with_loss(experiment, loss):
    runs = sd.grid(dataclasses.replace(experiment.specs[0], loss=loss), bound=[0.01, np.inf], decay_steps=4.0)
    return dataclasses.replace(experiment, specs=runs, runs=())


# --- losses -----------------------------------------------------------------------------------------------------


def test_a_users_loss_takes_the_place_of_the_tasks():
    spec = dataclasses.replace(WORD, loss=Near(0.5))
    p, y = jnp.asarray([[0.2], [2.0], [-3.0]]), jnp.asarray([0.0, 1.9, 0.0])
    np.testing.assert_allclose(model.losses(spec, p, y), optax.huber_loss(p[:, 0], y, delta=0.5))
    assert model.is_correct(spec, p, y).tolist() == [1, 1, 0]
    np.testing.assert_allclose(model.mean_prediction(spec, jnp.stack([p, p, 9 * p])), p)
    assert model.is_correct(dataclasses.replace(spec, loss=Huber()), p, y) is None
    assert np.isnan(task_of(spec).chance)


class Losses:
    """A namespace of losses."""

    @classmethod
    def squared(cls, predictions, ys):
        return (predictions[..., 0] - ys) ** 2


def test_a_method_of_a_class_at_the_top_of_a_file_is_a_loss():
    p, y = jnp.asarray([[0.5], [2.0]]), jnp.asarray([0.0, 1.0])
    assert model.losses(dataclasses.replace(WORD, loss=Losses.squared), p, y).tolist() == [0.25, 1.0]


def labelled(classes, targets, **fields):
    given = dict(steps=3, features=1, batch=2, hidden=(3,)) | fields
    return sd.Spec("labelled", classes=classes, targets=targets, **given)


@pytest.mark.parametrize("classes", [0, 2])
def test_labels_of_several_numbers_or_bits_add_up(classes):
    spec, rng = labelled(classes, 2), np.random.default_rng(0)
    split = rng.normal(size=(4, 3, 1)), [3] * 4, [[0, 1], [1, 1], [0, 0], [1, 0]]
    data = jax.tree.map(jnp.asarray, check(spec, {"train": split, "validation": split}))
    batch = task_of(spec).batch(data, "train", (np.arange(2), None))
    assert task_of(spec).outputs == 2 and batch.ys.tolist() == [[0, 1], [1, 1]]
    p = jnp.asarray([[-1.0, 2.0], [-3.0, 0.5]])
    exact = (p - batch.ys) ** 2 if classes == 0 else -jnp.log(jax.nn.sigmoid(p * (2 * batch.ys - 1)))
    np.testing.assert_allclose(model.losses(spec, p, batch.ys), exact.sum(-1), rtol=1e-5)
    right = model.is_correct(spec, p, batch.ys)
    assert right is None if classes == 0 else right.tolist() == [1, 0.5]
    assert "(4, 2)" in refusal(check, spec, {"train": (*split[:2], [0, 1, 0, 1]), "validation": split})


def test_a_weight_is_what_an_example_or_a_step_counts():
    """The two tasks weigh alike: of the second only the last step counts."""
    readout = dict(steps=6, batch=3, hidden=(3,), holdout=3)
    whole, stepwise = sd.Spec(Weighted(), **readout), sd.Spec(Weighted(True), readout="every", **readout)
    params = _training.start(whole).params
    found = []
    for spec in (whole, stepwise):
        batch = task_of(spec).batch(None, "train", jax.random.key(0))
        found.append(model.forward(having(spec, sd.Numbers().arrays()), params, batch))
    p = model.predict(
        having(whole, sd.Numbers().arrays()), params, task_of(whole).batch(None, "train", jax.random.key(0))
    )
    batch = task_of(whole).batch(None, "train", jax.random.key(0))
    each, weight = (np.asarray(p)[:, 0] - batch.ys) ** 2, np.float32([1, 2, 4])
    np.testing.assert_allclose(found[0].loss, np.sum(each * weight) / 7, rtol=1e-5)
    np.testing.assert_allclose(found[0].loss, found[1].loss, rtol=1e-5)
    shown = task_of(stepwise).diagnostic(None, jax.random.key(0), "holdout", 2)
    assert shown.weight.shape == (6, 2) and shown.ys.shape == (6, 2)


def test_an_example_that_weighs_less_than_nothing_is_refused():
    spec = sd.Spec(Weighted(sign=-1.0), batch=2, hidden=(3,), holdout=2)
    assert "has -2; it must be at least 0" in refusal(verify.gradient_error, spec, None)
    of, first = having(spec, sd.Numbers().arrays()), jnp.int32(0)
    batch = train.sample(of, None, train.batch_index(of, None, first), first)
    _, metrics = train.step(of, _training.start(spec), batch)
    assert not metrics["finite"] and np.isnan(metrics["loss"])  # where nobody asks for a verification


# --- what is refused --------------------------------------------------------------------------------------------


ODD = {
    "counts": lambda: optax.GradientTransformation(lambda p: 0, lambda u, count, p=None: (u, count + 0.5)),
    "takes": lambda: sd.Rule(lambda p: (), lambda g: g),
    "pair": lambda: optax.GradientTransformation(lambda p: (), lambda u, s: (u, s)),
    "begins": lambda: optax.GradientTransformation(lambda: (), lambda u, s, p=None: (u, s)),
    "word": lambda: optax.GradientTransformation(lambda p: "a word", lambda u, s, p=None: (u, s)),
    "function": lambda: optax.GradientTransformation(lambda p: max, lambda u, s, p=None: (u, s)),
    "counted": lambda: lambda p, y: (p[..., 0] > y).astype(jnp.int32),
    "says": lambda: sd.Rule(lambda p: (), lambda g, s, p, at: (g, s, {"x": 1})),
    "nothing": lambda: sd.Rule(lambda p: (), lambda g, s, p, at: (g, s, {"clipped": None})),
    "imaginary": lambda: sd.Rule(lambda p: (), lambda g, s, p, at: (g, s, {"clipped": 1j * at.step})),
    "two": lambda: sd.Rule(lambda p: (), lambda g, s, p, at: (g, s)),
    "many": lambda: lambda n: jnp.ones(2),
    "number": lambda: 1.0,
    "table": lambda: lambda n: {0: 1.0, 1: 0.5}[n],
    "asks": lambda: optax.GradientTransformationExtraArgs(lambda p: (), lambda g, s, p, *, more: (g, s)),
    "column": lambda: lambda p, y: (p[..., 0] - y)[:, None],
    "mean": lambda: lambda p, y: jnp.mean(p),
    "two sets": lambda: optax.lookahead(optax.sgd(0.1), 2, 0.5),
    "elsewhere": lambda: optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1), opaque_mode=True),
    "masked": lambda: optax.masked(optax.sgd(0.1), {"x": True}),
    "per example": lambda: optax.contrib.differentially_private_aggregate(1.0, 0.1, 0),
}


@sd.part
class Asking:
    """Optax asks for the value of its numbers."""

    steps: sd.Number = sd.number(9.0, above=0.0)

    def build(self):
        return optax.cosine_decay_schedule(1.0, self.steps)


@sd.part
class Odd:
    what: str

    def build(self):
        return ODD[self.what]()


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(optimizer=()), "optimizer () tuple"),
        (dict(optimizer=(sd.ClipByNorm(1.0), "adam")), "optimizer[1] 'adam' seqdyn.Adam"),
        (dict(optimizer=(optax.clip(1.0), sd.Adam())), "optimizer[0] optax build()"),
        (dict(optimizer=(sd.Adam, sd.Adam())), "optimizer[0] class Adam"),
        (dict(optimizer=sd.ClipByNorm(1.0)), "optimizer ClipByNorm seqdyn.Adam()"),
        (dict(optimizer=(sd.SGD(), sd.ClipByNorm(1.0), sd.Adam())), "optimizer SGD Adam one"),
        (dict(clip=optax.clip(1.0)), "clip optax build()"),
        (dict(clip="tensor"), "clip 'tensor' norm"),
        (dict(clip=Gently()), "clip Gently optax.GradientTransformation"),
        (dict(clip=Odd("takes")), "clip Odd update where it stands"),
        (dict(clip=Odd("pair")), "clip Odd update (u, s) (updates, memory, params)"),
        (dict(optimizer=Odd("begins")), "optimizer Odd init () (params)"),
        (dict(optimizer=Odd("word")), "optimizer Odd memory 'a word' numbers"),
        (dict(optimizer=Odd("function")), "optimizer Odd memory max numbers"),
        (dict(loss=Odd("counted")), "loss Odd int32 0 floats"),
        (dict(clip=Odd("says")), "clip Odd 'x' clipped"),
        (dict(clip=Odd("nothing")), "clip Odd {'clipped': None} real"),
        (dict(clip=Odd("imaginary")), "clip Odd complex64 clip_scale, real"),
        (dict(clip=Odd("two")), "clip Odd tuple 3"),
        (dict(optimizer=Odd("counts")), "optimizer Odd memory int32 float32"),
        (dict(schedule=optax.cosine_decay_schedule(1.0, 9)), "schedule cosine_decay_schedule module"),
        (dict(schedule=absolute), "schedule absolute updates done"),
        (dict(loss=falling), "loss falling (predictions, ys)"),
        (dict(optimizer=Odd("asks")), "optimizer Odd value, grad, value_fn unexpected"),
        (dict(optimizer=Odd("two sets")), "optimizer Odd optax 'fast' add its updates value_fn"),
        (dict(optimizer=Odd("elsewhere")), "optimizer Odd optax grad_fn add its updates"),
        (dict(clip=Odd("per example")), "clip Odd optax batch add its updates"),
        (dict(optimizer=Odd("masked")), "optimizer Odd optax must fit these parameters"),
        (dict(schedule=PerTensor()), "schedule PerTensor updates done"),
        (dict(schedule=Odd("many")), "schedule Odd shape (2,) one number"),
        (dict(schedule=Odd("table")), "schedule Odd Python jax.numpy"),
        (dict(schedule=Asking()), "schedule Asking Python number()"),
        (dict(optimizer=sd.SGD(schedule=Asking())), "SGD.schedule Asking Python"),
        (dict(optimizer=sd.SGD(schedule=Odd("many"))), "SGD.schedule Odd one number"),
        (dict(schedule=Gently(), optimizer=Halves()), "schedule Gently optimizer Halves"),
        (dict(penalties=("l1_proximal",), optimizer=Halves()), "l1_proximal Halves"),
        (dict(loss="huber"), "loss 'huber' part"),
        (dict(loss=lambda p, y: p), "loss <lambda> module"),
        (dict(loss=optax.huber_loss), "loss huber_loss (4, 4) predictions (4, 1) ys (4,)"),
        (dict(loss=Odd("number")), "loss Odd function (predictions, ys)"),
        (dict(loss=Odd("column")), "loss Odd (4, 1) (4,)"),
        (dict(loss=Odd("mean")), "loss Odd () (4,)"),
        (dict(loss=Huber(), task=Weighted()), "loss Huber Weighted leave"),
        (dict(loss=Huber(), monte_carlo=2, dropout="outputs"), "monte_carlo Huber mean()"),
        (dict(targets=2), "targets 2 adding"),
        (dict(targets=0), "targets 0"),
        (dict(task="labelled", features=1, classes=3, targets=2), "targets 2 classes 3"),
        (dict(task="labelled", features=1, loss=Huber(), stop="accuracy"), "stop Huber correct()"),
    ],
)
def test_what_does_not_fit_is_one_sentence_before_anything_is_compiled(fields, words, tmp_path):
    def tried():
        e = sd.Experiment("x", sd.Spec(**{"steps": 6, "batch": 4, "holdout": 4} | fields), updates=2)
        sd.run(e, tmp_path / "out")

    sentence = refusal(tried)
    assert all(word in sentence for word in words.split(" ")), sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "spec, number",
    [
        (dict(optimizer=sd.Adam()), "lr"),
        (dict(schedule=Gently()), "warmup"),
        (dict(clip=PerTensor()), "clip"),
    ],
)
def test_a_hyperparameter_that_a_part_does_not_heed_is_refused(spec, number):
    sentence = refusal(sd.Experiment, "x", dataclasses.replace(WORD, **spec), sd.grid(**{number: 0.5}), updates=2)
    assert f"{number} is 0.5" in sentence and "does not heed" in sentence


@sd.part
class Mistaken:
    """A rule whose author gives optax another's memory."""

    def build(self):
        finite = optax.apply_if_finite(optax.sgd(0.1), 3)
        return optax.GradientTransformation(lambda p: (), lambda u, s, p=None: finite.update(u, s, p))


def test_an_error_of_ones_own_is_raised_as_it_is_though_optax_meets_it():
    with pytest.raises(AttributeError, match="inner_state"):
        spec = sd.Spec("adding", steps=4, batch=2, optimizer=Mistaken())
        check_traces(sd.Experiment("x", sd.grid(spec), updates=1), None)
