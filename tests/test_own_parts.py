"""Laws of users' own parts in a `Spec`: they train, are recorded, resumed and read as the library's words are."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import _own
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from _digests import digests
from _own import SPEC, Descent, First, Leaky, Lion, experiment
from _processes import Process
from _refusals import refusal
from _training import having

import seqdyn as sd
from analysis import gradient_flow
from seqdyn import described
from seqdyn.building import check_repeats
from seqdyn.learn import context, train, verify
from seqdyn.nets import cells
from seqdyn.nets.bptt import Backprop, taps, unroll
from seqdyn.nets.stack import unroll_autodiff
from seqdyn.parts import lenient
from seqdyn.runs import manifest, points, sweep
from seqdyn.runs.run import default_out

X64 = False
run = partial(sd.run, verify=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What the script makes, started in a folder of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    process = Process([_own.__file__, "out"], cwd=folder)
    said = process.finish()
    assert process.returncode == 0, said
    return folder / "out"


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """The same, made here."""
    return run(experiment(), tmp_path_factory.mktemp("here") / "out")


# --- cells ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counted", [False, True])
def test_a_step_function_has_the_gradient_and_the_adjoint_of_autodiff(counted):
    """Of a bare array, and of a carry of several parts, of several ranks and types."""
    with jax.enable_x64(True):
        cell = Leaky(3, tau=4.0, counted=counted).build(2)
        params, xs = cell.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (5, 4, 2))
        mask = jnp.arange(5)[:, None] < jnp.array([[5, 2, 4, 1]])
        cut = Backprop(mask=mask)

        def loss(by, params, xs, watch):
            hs, last = by(cell, params, cell.initial_carry((4,)), xs, cut, watch)
            return jnp.sum(hs**3) + jnp.sum(last.h**2)

        watch = taps(cell, 5, (4,))
        *ours, seen = jax.jit(jax.grad(partial(loss, unroll), (0, 1, 2)))(params, xs, watch)
        theirs = jax.jit(jax.grad(lambda *of: loss(unroll_autodiff, *of, type(watch)()), (0, 1)))(params, xs)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14), tuple(ours), theirs)
        last = jax.grad(lambda h: jnp.sum(h**3) + jnp.sum(h**2))(
            unroll(cell, params, cell.initial_carry((4,)), xs)[0][-1]
        )
        np.testing.assert_allclose(seen.adjoint_norm.h[-1, 0], jnp.linalg.norm(last[0]), rtol=1e-12)
        assert hasattr(seen.adjoint_norm, "c") == counted


# --- runs -------------------------------------------------------------------------------------------------------


def test_a_process_that_never_saw_the_script_reads_what_it_recorded(out):
    code = f"""if True:
        import sys, seqdyn
        ds = seqdyn.load({str(out)!r}).load()
        assert not any("_own" in name for name in sys.modules)
        print(ds.tau.values.tolist(), ds.b1.values.tolist(), ds.label.values[0], ds.square.dims, ds.square.attrs)
        print(ds.layer_square.shape, bool((ds.square > 0).all()), ds.sizes["time"], "gain" in ds.coords)
        print(ds.leaf_square.dims, ds.leaf.values, ds.leaf_square.attrs.keys())
        try:
            seqdyn.restore({str(out)!r}, 0)
        except seqdyn.ConfigError as error:
            print(error)
    """
    said = Process(["-c", code]).finish()
    assert "[2.0, 2.0, 20.0, 20.0] [0.9, 0.9, 0.9, 0.9] Leaky ('run', 'step')" in said, said
    assert "'long_name': \"sum of the gradient's squares\", 'units': 'loss²'" in said
    assert "(4, 4, 1) True 6 False" in said and "import _own before" in said
    assert "('run', 'step', 'layer', 'leaf') ['w' 'u' 'b'] dict_keys(['long_name', 'units'])" in said


def test_records_are_functions_of_the_update_that_was_made(out):
    ds = sd.load(out).load()
    np.testing.assert_allclose(ds.square, ds.grad_norm**2, rtol=1e-4)
    layer = (ds.group_grad_norm.sel(group=["layer0/w", "layer0/u", "layer0/b"]) ** 2).sum("group")
    np.testing.assert_allclose(ds.layer_square[:, :, 0], layer, rtol=1e-4)
    np.testing.assert_allclose(
        ds.leaf_square.sel(leaf="u")[..., 0], ds.group_grad_norm.sel(group="layer0/u") ** 2, rtol=1e-4
    )
    assert bool(ds.accuracy.notnull().all()) and bool(np.isfinite(ds.adjoint_norm).all()) and "learning_rate" not in ds
    assert not np.array_equal(ds.loss[0], ds.loss[1]) and not np.array_equal(ds.adjoint_norm[0], ds.adjoint_norm[2])


def test_other_numbers_axes_and_seeds_compile_nothing_and_a_run_alone_is_the_run_in_the_grid(grid, tmp_path):
    run(experiment(seeds=[6]), tmp_path / "before")  # programs are dropped where memory is short
    programs = sweep.programs(SPEC, 1)
    known = [p._cache_size() for p in programs]
    alone = dataclasses.replace(SPEC, layers=(Leaky(3, tau=20.0),))
    records, params = digests(run(experiment(spec=alone, seeds=[1]), tmp_path / "alone"))
    run(experiment(b1=[0.5, 0.7], scale=2.0, tau=3.0), tmp_path / "other")
    assert [p._cache_size() for p in programs] == known and known[1] > 0
    (whole, whole_params), last = digests(grid), slice(3, 4)
    ds = sd.load(grid).load()
    assert params == whole_params[last]
    assert all(np.asarray(ds[name][last]).tobytes() == records[name] for name in whole if ds[name].dims[0] == "run")


def test_going_on_is_having_asked_at_once_in_the_chunks_that_are_there(tmp_path):
    def of(updates):
        return sd.Experiment("own", sd.grid(SPEC, seeds=2), updates=updates, tile=2)

    run(of(2), tmp_path / "twice")
    run(of(4), tmp_path / "twice")
    assert manifest.read(tmp_path / "twice")["experiment"]["chunk"] == 2
    at_once = dataclasses.replace(of(4), chunk=2, probe_every=2)
    assert digests(run(at_once, tmp_path / "once")) == digests(tmp_path / "twice")


def test_a_new_field_with_a_default_orphans_nothing(grid):
    def before(found):
        there = json.loads(json.dumps(found["experiment"]))
        del there["specs"][0]["layers"][0]["counted"], there["specs"][0]["task"]["scale"]
        return found | {"experiment": there}

    kept = manifest.read(grid)
    manifest.note(grid, before)
    run(experiment(), grid)
    assert manifest.read(grid)["experiment"] == kept["experiment"]


def test_a_changed_part_is_refused_by_its_path_and_an_edited_function_is_a_warning(grid, monkeypatch):
    changed = dataclasses.replace(SPEC, layers=(Leaky(3, counted=True),))
    sentence = refusal(run, experiment(spec=changed, seeds=2, tau=[2.0, 20.0]), grid)
    assert "specs[0].layers[0].counted is False there and True here" in sentence
    wider = dataclasses.replace(SPEC, layers=(Leaky(5),))
    assert "specs[0].layers[0].hidden is 3" in refusal(run, experiment(spec=wider, seeds=2, tau=[2.0, 20.0]), grid)
    assert "specs[0].optimizer.b1" in refusal(run, experiment(seeds=2, tau=[2.0, 20.0], b1=0.5), grid)
    assert "specs[0].optimizer" in refusal(run, experiment(spec=dataclasses.replace(SPEC, optimizer="adam")), grid)
    monkeypatch.setattr(described.inspect, "getsource", lambda of: "edited")
    with pytest.warns(UserWarning, match="sources._own:"):
        run(experiment(), grid)


@pytest.mark.slow
def test_words_and_parts_mix_and_words_alone_are_written_as_ever(tmp_path):
    """Descent by a part is descent by a word, on an own task through a cell of the library, in one program each."""
    parts = dataclasses.replace(SPEC, layers=(), hidden=(3,), cell="lstm", records=(), optimizer=Descent(0.1))
    words = dataclasses.replace(parts, optimizer="sgd", name="word")
    e = sd.Experiment("mixed", (sd.grid(parts), sd.grid(words, lr=0.1)), updates=2, probes=())
    ds = sd.load(sd.run(e, tmp_path / "out", verify=False)).load()
    np.testing.assert_allclose(ds.loss[0], ds.loss[1], rtol=1e-6)
    assert ds.lr.values.tolist() == [0.1, 0.1] and ds.label.values.tolist() == ["lstm", "word"]
    assert np.isnan(ds.learning_rate[0]).all() and (ds.learning_rate[1] == np.float32(0.1)).all()
    specs = sd.Spec(steps=9), sd.Spec(cell="lstm", steps=9, hidden=(3, 4), penalties=("l2",))
    e = sd.Experiment("words", specs, sd.grid(seeds=2, clip=[1.0, np.inf], l2=0.1), 4, 2, 2)
    assert default_out(e) == Path("runs/words-89a7640d")  # as before there were parts


def test_what_parts_decide_is_decided_anew_where_they_change():
    wide = dataclasses.replace(SPEC, layers=(Leaky(5), Leaky(2)), task=First(8))
    assert (wide.hidden, wide.steps) == ((5, 2), 8)
    plain = dataclasses.replace(wide, layers=(), task="adding", optimizer="adam", records=())
    assert plain == sd.Spec(batch=4, holdout=4)
    e = dataclasses.replace(experiment(), updates=8)
    assert len(e.runs[0]) == 4 and e.layout.counts == (4,) and e.describe()["specs"] == experiment().describe()["specs"]


def test_the_numbers_of_parts_are_coordinates_by_the_shortest_end_of_their_path_that_means_one_thing():
    two = dataclasses.replace(SPEC, layers=(Leaky(3), Leaky(4)))
    word = dataclasses.replace(SPEC, layers=(), optimizer="adam", name="word")
    e = sd.Experiment("x", (sd.grid(two, tau=[2.0, 3.0], lr=0.5), sd.grid(word, gain=0.5, lr=0.25)), updates=2)
    found = points.per_run(json.loads(json.dumps(e.describe())), e.layout, {"steps"})
    np.testing.assert_array_equal(found["tau"], [2.0, 3.0, np.nan])  # both layers'
    np.testing.assert_array_equal(found["layers[1].hidden"], [4, 4, np.nan])
    np.testing.assert_array_equal(found["task.steps"], [6, 6, 6])
    np.testing.assert_array_equal(found["lr"], [0.5, 0.5, 0.25])
    np.testing.assert_array_equal(found["gain"], [np.nan, np.nan, 0.5])
    assert found["label"].tolist() == ["Leaky", "Leaky", "word"]


@pytest.mark.slow
def test_the_example_of_parts_of_ones_own_says_how_far_each_tau_reaches(tmp_path):
    process = Process(["experiments/own/leaky.py", tmp_path / "out", "--updates", "2"], cwd=tmp_path)
    said = process.finish()
    assert process.returncode == 0, said
    assert [line.split(":")[0] for line in said.splitlines()[-3:]] == ["τ    2", "τ   10", "τ   50"], said
    reach = [float(line.split(" at first")[0].split()[-1]) for line in said.splitlines()[-3:]]
    assert reach == sorted(reach)


@pytest.mark.slow
def test_the_example_of_a_clip_a_schedule_and_a_loss_says_what_each_bound_leaves(tmp_path):
    process = Process(["experiments/own/rule.py", tmp_path / "out", "--smoke"], cwd=tmp_path)
    said = process.finish()
    assert process.returncode == 0, said
    lines = said.splitlines()[-2:]
    assert [line.split(":")[0] for line in lines] == ["bound 0.001", "bound 0.1"], said
    left = [float(line.split("%")[0].split()[-1]) for line in lines]
    assert left[0] < left[1] <= 100


@sd.part
class Noisy:
    """Its state holds a key, its rate is named as a hyperparameter that training heeds, its function is JAX's."""

    seed: sd.Number = sd.number(7, low=0, whole=True)
    clip: sd.Number = sd.number(5.0, low=0.0)
    rule: Callable = optax.sgd

    def build(self) -> optax.GradientTransformation:
        def labels(model):
            return jax.tree.map(lambda _: "fast", model)._replace(readout=jax.tree.map(lambda _: "slow", model.readout))

        own = {"fast": self.rule(0.1), "slow": self.rule(0.01)}
        return optax.chain(
            optax.clip(self.clip),
            optax.add_noise(0.1, 0.5, jax.random.key(self.seed)),
            optax.multi_transform(own, labels),
        )


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    spec = dataclasses.replace(SPEC, optimizer=Noisy(), records=())
    axes = {"numbers.clip": [0.1, 0.2], "optimizer.clip": [3.0]}
    e = sd.Experiment("noisy", sd.grid(spec, seeds=2, **axes), updates=2, chunk=2, tile=4)
    return run(e, tmp_path_factory.mktemp("noisy") / "out")


def test_a_number_of_a_part_hides_no_hyperparameter_that_is_heeded(noisy):
    ds = sd.load(noisy)
    assert ds["clip"].values.tolist() == [0.1, 0.1, 0.2, 0.2] and ds["seed"].values.tolist() == [0, 1, 0, 1]
    assert set(ds["optimizer.clip"].values.tolist()) == {3.0} and set(ds["optimizer.seed"].values.tolist()) == {7}


def test_an_optimiser_may_hold_keys_and_know_the_network_and_is_made_anew_with_its_function(noisy):
    code = f"""if True:
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        import jax, numpy as np, seqdyn, test_own_parts
        model = seqdyn.restore({str(noisy)!r}, 1)
        print(all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model)))
    """
    process = Process(["-c", code])
    assert process.finish().strip() == "True"


def test_cells_and_tasks_of_ones_own_are_drawn_and_said_to_have_no_criterion(grid):
    *figures, page = gradient_flow.show(grid)
    text = page.read_text()
    assert figures and "not known when it is learned" in text and "Leaky, tau" in text and "gain 1" not in text


def test_a_directory_is_found_again_for_longer():
    assert default_out(sd.Experiment("own", SPEC, updates=2000)) == default_out(sd.Experiment("own", SPEC, updates=150))


# --- what is refused --------------------------------------------------------------------------------------------


def made(build):
    """A part of any kind with this build."""

    @sd.part
    class Made:
        def build(self):
            return build()

    return Made()


def test_an_error_in_ones_own_code_says_in_a_note_whose_it_is():
    with pytest.raises(ZeroDivisionError) as raised:
        sd.Experiment("own", sd.Spec(task=made(lambda: 1 / 0)), updates=1)
    assert raised.value.__notes__[0] == "task is Made, in whose code this was raised."


def cell(step=lambda p, h, x: h, initial_carry=lambda b: jnp.zeros((*b, 3)), init=lambda key: {"w": jnp.ones(3)}):
    @sd.part
    class Odd:
        def build(self, inputs):
            return sd.cell(init, step, initial_carry)

    return Odd()


def task(draw=lambda key, b: (jnp.ones((5, b, 2)), jnp.ones(b)), loss=lambda p, y: p[:, 0] - y, **sizes):
    return made(lambda: sd.task(draw, loss=loss, **{"inputs": 2, "outputs": 1} | sizes))


@sd.part
class Silent:
    variables = {"loss": sd.Variable((), "taken")}

    def record(self, context):
        return {"loss": context.loss}


@sd.part
class Short:
    variables = {"short": sd.Variable(("time",), "too short")}

    def record(self, context):
        return {"short": jnp.ones(2)}


@sd.part
class Gives:
    """Records what it is told to."""

    what: str
    about: str | None = "something"

    @property
    def variables(self):
        return {"given": sd.Variable((), self.about)}

    def record(self, context):
        given = {"word": np.array("a"), "key": context.key, "complex": context.loss * 1j, "large": np.int64(2**40)}
        return {"given": given[self.what]}


@sd.part
class Stepping:
    """A cell of which JAX has no derivative."""

    def build(self, inputs):
        def step(p, h, x):
            return jax.lax.while_loop(lambda h: jnp.sum(h) < 0, lambda h: h * p, h)

        return sd.cell(lambda key: jnp.ones(3), step, lambda batch: jnp.zeros((*batch, 3)))


@sd.part
class Asking:
    lr: sd.Number = sd.number(0.1)

    def build(self):
        return optax.sgd(self.lr if self.lr > 0 else 1.0)


@sd.part
class Sums:
    """Σ x over a sequence's own steps; a long one counts for more."""

    def build(self):
        def of_lengths(key, lengths):
            xs = jax.random.normal(key, (6, len(lengths), 1))
            mask = jnp.arange(6)[:, None] < lengths
            return xs, jnp.sum(jnp.where(mask, xs[..., 0], 0), axis=0), lengths

        def draw(key, b):
            return of_lengths(key, jnp.full(b, 6))

        return sd.task(draw, loss=lambda p, y: (p[:, 0] - y) ** 2, inputs=1, outputs=1, of_lengths=of_lengths)


def test_a_task_of_ones_own_draws_sequences_of_lengths_of_their_own():
    spec = sd.Spec(Sums(), batch=40, holdout=40, shortest=2, cell="rnn", hidden=(3,))
    batch = jax.tree.map(np.asarray, train.training_batch(having(spec, sd.Numbers()), None, 0))
    lengths = batch.mask.sum(0)
    assert (batch.mask == (np.arange(6)[:, None] < lengths)).all() and {*lengths.tolist()} == {
        2,
        3,
        4,
        5,
        6,
    }
    assert (batch.weight == lengths).all() and (batch.xs[~batch.mask] == 0).all()
    np.testing.assert_allclose(batch.xs[..., 0].sum(0), batch.ys, rtol=1e-5)
    assert train.training_batch(having(dataclasses.replace(spec, shortest=0), sd.Numbers()), None, 0).mask is None


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(task=First), "task class First"),
        (dict(task=First(), shortest=2), "shortest 2 First"),
        (
            dict(task=task(of_lengths=lambda key, n: (jnp.ones((3, 4, 2)), jnp.ones(4)))),
            "of_lengths (3, 4, 2) (5, 4, 2)",
        ),
        (dict(task=task(of_lengths=lambda key, n: n)), "of_lengths (xs, ys)"),
        (dict(task=lambda: 0), "task lambda"),
        (dict(task=Leaky(3)), "task Leaky inputs nothing"),
        (dict(task=Lion()), "task Lion seqdyn.task"),
        (dict(task="first"), "task 'first'"),
        (dict(task=task(inputs=3)), "xs (5, 4, 2) 3"),
        (dict(task=task(loss=lambda p, y: jnp.mean(p))), "loss shape () (4,)"),
        (dict(task=task(loss=lambda p, y: p)), "loss (4, 1) (4,)"),
        (dict(task=task(draw=lambda key, b: jnp.ones((5, b, 2)))), "draw (xs, ys)"),
        (dict(task=task(draw=lambda key: 0)), "draw (key) (key, batch)"),
        (dict(task=task(draw=lambda key, b: (jnp.ones((5, b, 2)), [1.0] * b))), "ys list array"),
        (dict(task=task(draw=lambda key, b: (jnp.ones((5, b, 2)), np.full(b, 2**40)))), "draw 1099511627776 2³¹"),
        (dict(task=task(loss=lambda p, y, w: p)), "loss (p, y, w) (predictions, ys)"),
        (dict(task=task(loss=lambda p, y: (p[:, 0] > y).astype(int))), "loss int32 0 floats"),
        (dict(task=task(loss=lambda p, y: 0.5)), "loss float predictions (4, 1) ys (4,)"),
        (dict(task=task(correct=lambda p, y: "yes")), "correct str (4,)"),
        (dict(task=task(draw=lambda key, b: (jnp.ones((b, 5, 2)), jnp.ones(b)))), "xs (4, 5, 2)"),
        (
            dict(task=task(draw=lambda key, b: (np.random.default_rng(jax.random.key_data(key)), jnp.ones(b)))),
            "Made Python jax.numpy",
        ),
        (dict(task=task(draw=lambda key, b: (jnp.ones((b, 4, 2)), jnp.ones(b)))), "xs (5, 4, 2) batch 5 steps"),
        (
            dict(task=task(draw=lambda key, b: (jnp.ones((4, b, 2)), jnp.ones((b, 4)))), readout="every"),
            "ys (5, 4) batch 5 steps",
        ),
        (dict(task=task(), readout="every"), "ys (4,) (5, 4) 'every'"),
        (dict(task=First(6), steps=7), "steps 7 First 6"),
        (dict(task=First(), vocabulary=9), "vocabulary 9"),
        (dict(optimizer=optax.adam(1e-3)), "optimizer optax build()"),
        (dict(optimizer=First()), "optimizer First optax.GradientTransformation"),
        (dict(optimizer=Lion(), schedule="cosine"), "schedule 'cosine' Lion"),
        (dict(layers=(Leaky(3), "lstm")), "layers[1] 'lstm' part"),
        (dict(layers=(Lion(),)), "layers[0] Lion inputs"),
        (dict(layers=(cell(step=lambda p, h, x: h[:, :2]),)), "step (3, 2) initial_carry (3, 3)"),
        (dict(layers=(cell(initial_carry=lambda b: (jnp.zeros(b), jnp.zeros(b))),)), "carry tuple h"),
        (dict(layers=(cell(init=lambda key: {"n": jnp.arange(3)}),)), "layers[0] Odd int32 at n floats build"),
        (
            dict(
                layers=(
                    cell(
                        initial_carry=lambda b: {"h": jnp.zeros((*b, 3)), "k": jax.random.split(jax.random.key(0), b)}
                    ),
                )
            ),
            "key<fry> (3,) (3, 3) noise()",
        ),
        (dict(layers=(cell(init=lambda: {"w": jnp.ones(3)}),)), "init () (key)"),
        (dict(layers=(cell(step=lambda p, h: h),)), "step (p, h) (params, carry, x)"),
        (dict(layers=(cell(initial_carry=lambda b: jnp.zeros((*b, 0))),)), "layers[0] Odd (3, 0) 1 wide"),
        (dict(layers=(Stepping(),)), "Stepping JAX differentiate while_loop"),
        (dict(layers=(Leaky(3),), cell="lstm"), "cell 'lstm' Leaky"),
        (dict(layers=(Leaky(3),), hidden=(4,)), "hidden (4,) Leaky (3,)"),
        (dict(layers=(Leaky(3),), penalties=("l2",)), "penalties 'l2' Leaky"),
        (dict(layers=(Leaky(3),), optimizer="adamw"), "'adamw' Leaky"),
        (dict(layers=(Leaky(3),), dropout="zoneout"), "dropout 'zoneout' Leaky"),
        (dict(records=(Leaky(3),)), "records[0] Leaky record()"),
        (dict(records=(Silent(),)), "records 'loss'"),
        (dict(records=(Short(),), layers=(Leaky(3),)), "Short 'short' (2,) ('time',) (100,)"),
        (dict(records=(Gives("word"),)), "Gives 'given' <U1 real numbers"),
        (dict(records=(Gives("key"),)), "Gives 'given' key real numbers"),
        (dict(records=(Gives("complex"),)), "Gives 'given' complex64 real numbers"),
        (dict(records=(Gives("large", about=None),)), "records[0] Gives 'given' long_name None text"),
        (dict(optimizer=Asking()), "optimizer Asking Python jnp.where"),
    ],
)
def test_what_does_not_fit_is_one_sentence_before_anything_is_compiled(fields, words, tmp_path):
    def tried():
        sd.run(sd.Experiment("x", sd.Spec(**{"batch": 4, "holdout": 4} | fields), updates=2), tmp_path / "out")

    sentence = refusal(tried)
    assert all(word in sentence for word in words.split(" ")), sentence
    assert not (tmp_path / "out").exists()


@sd.part
class Square:
    """Five numbers are told of five steps."""

    def build(self):
        def draw(key, b):
            return jnp.ones((5, b, 2)), jnp.ones((b, 5))

        return sd.task(draw, loss=lambda p, y: jnp.mean((p - y) ** 2, axis=-1), inputs=2, outputs=5)


def test_a_sequence_may_have_as_many_labels_as_there_are_sequences_and_steps():
    """Where the readout is the last step's, ys [batch, …] is no draw with its two axes turned."""
    assert sd.Experiment("x", sd.Spec(Square(), batch=5, holdout=5), updates=2).specs[0].steps == 5


def test_a_whole_number_of_more_than_32_bits_is_recorded_as_the_number_that_it_is():
    # JAX would cut it to 32 bits, which are all 0.
    said = context.checked("it", Gives("large").record, Looked(), Gives("large").variables, {})
    assert said["given"] == 2.0**40


class Looked:
    """What `Gives` reads of a context."""

    key, loss = None, jnp.float32(1.0)


@pytest.mark.parametrize("labels", [{"a", "b"}, iter(["a", "b"])], ids=["set", "iterator"])
def test_labels_that_have_no_order_or_are_gone_once_they_are_read_are_refused(labels):
    class Record:
        variables = {"x": sd.Variable(("part",), "of each part", axes={"part": labels})}

    assert "'part'" in refusal(context.check_variables, "records[0]", Record())


@sd.part
class Hiding:
    """Records what the library has a place for."""

    of: str
    dims: tuple[str, ...] = ()
    axis: str = ""
    labels: tuple[float | str, ...] = (1, 2)
    short: bool = False

    @property
    def variables(self):
        return {self.of: sd.Variable(self.dims, "hides", axes={self.axis: self.labels} if self.axis else {})}

    def record(self, context):
        return {self.of: jnp.full(len(self.labels), context.loss) if self.axis and not self.short else context.loss}


@sd.part
class Halves:
    """Of inputs that must be even."""

    def build(self, inputs):
        assert inputs % 2 == 0
        return Leaky(3).build(inputs)


def around(factor):
    @sd.part
    class Inner:
        def build(self, inputs):
            return sd.cell(
                lambda key: {"a": jnp.ones(3)}, lambda p, h, x: h * p["a"] * factor, lambda b: jnp.zeros((*b, 3))
            )

    return Inner()


def test_two_classes_of_one_name_are_no_experiment():
    old, new = (sd.Spec(task=task(loss=lambda p, y: p[:, 0] - y), steps=5, batch=4, name=name) for name in "ab")
    assert "Made is the name of two classes" in refusal(sd.Experiment, "x", (old, new), updates=2)


def test_an_own_cell_reads_what_the_word_of_a_task_gives():
    assert sd.Spec("adding", layers=(Halves(),)).hidden == (3,)


@pytest.mark.parametrize(
    "fields, words",
    [
        *((dict(records=(Hiding(of),)), f"records {of}") for of in ("clip", "seed", "run", "lag", "layer", "label")),
        (dict(records=(Hiding("a"), Hiding("a"))), "records[1] 'a' another"),
        (dict(records=(Hiding("ä" * 101),)), "records[0] Hiding 'ää 200 bytes"),
        (dict(records=(Hiding("a", ("unit", "unit")),)), "'a' dims once"),
        (dict(records=(Hiding("a", ("b",)),)), "'a' dims ('b',) layer, axes"),
        (dict(records=(Hiding("a", (), "b"),)), "'a' dims axes"),
        (dict(records=(Hiding("a", ("b",), "b", ()),)), "'b' labels () words"),
        (dict(records=(Hiding("a", ("b",), "b", (1, 1)),)), "'b' labels (1, 1) once"),
        (dict(records=(Hiding("a", ("time",), "time"),)), "'time' own"),
        (dict(records=(Hiding("a", ("gate",), "gate"),)), "records axis 'gate' name"),
        (dict(records=(Hiding("a", ("b",), "b"), Hiding("c", ("b",), "b", (1, 3)))), "records axis 'b' labels"),
        (dict(records=(Hiding("b"), Hiding("a", ("b",), "b"))), "records axis 'b' name"),
        (dict(records=(Hiding("a", ("b",), "b", short=True),)), "Hiding 'a' () (2,)"),
        (dict(layers=(around(2.0),)), "Inner factor top"),
    ],
)
def test_what_would_be_lost_or_cannot_be_told_apart_is_one_sentence(fields, words, tmp_path):
    test_what_does_not_fit_is_one_sentence_before_anything_is_compiled(fields, words, tmp_path)


@pytest.mark.parametrize(
    "tried, words",
    [
        (lambda: sd.grid(SPEC, gain=[1.0]), "'gain' tau b1"),
        (lambda: sd.grid(SPEC, tau=[0.5]), "tau 0.5 at least 1"),
        (lambda: sd.grid(SPEC, tau=[[2.0, 3.0], [4.0, 5.0]]), "tau [2.0, 3.0] number"),
        (lambda: sd.grid(SPEC, tau={"low": 2.0}), "tau {'low': 2.0} number"),
        (lambda: sd.grid(dataclasses.replace(SPEC, optimizer="adam"), b1=[0.5]), "'b1' lr"),
        (lambda: sd.Experiment("x", SPEC, sd.grid(lr=0.1), updates=2), "lr 0.1 Lion"),
        (lambda: sd.Experiment("x", sd.grid(SPEC), sd.grid(), updates=2), "numbers"),
        (lambda: sd.Experiment("x", sd.grid(SPEC), updates=2, probes=("weights",)), "probes weights Leaky"),
        (lambda: sd.Experiment("x", sd.grid(SPEC)), "updates 0"),
    ],
)
def test_a_number_that_nobody_heeds_is_one_sentence(tried, words):
    sentence = refusal(tried)
    assert all(word in sentence for word in words.split(" ")), sentence


def test_a_pull_that_is_no_derivative_is_found_before_training(tmp_path):
    @sd.part
    class Wrong:
        def build(self, inputs):
            right = Leaky(3).build(inputs)
            return right._replace(
                vjp=lambda adjoint, partials: (adjoint, jnp.zeros((*adjoint.h.shape[:-1], inputs)), ())
            )

    spec = dataclasses.replace(SPEC, layers=(Wrong(),), records=())
    first = sd.grid(spec).at(0).arrays()
    assert verify.gradient_error(first, None) > verify.TOLERANCE


RNG = np.random.default_rng()


@sd.part
class ByNumPy:
    """What draws by other means than its key, in one of its functions."""

    where: str

    def build(self, inputs=None):
        def draw(key, batch):
            xs = (RNG if self.where == "task" else np.random.default_rng(0)).normal(size=(5, batch, 1))
            return xs, xs.sum(0)[:, 0]

        def init(key):
            return {"w": RNG.normal(size=(inputs, 3)), "u": jnp.eye(3)}

        if inputs is None:
            return sd.task(draw, loss=lambda p, y: (p[..., 0] - y) ** 2, inputs=1, outputs=1)
        return sd.cell(init, lambda p, h, x: jnp.tanh(x @ p["w"] + h @ p["u"]), lambda b: jnp.zeros((*b, 3)))


@sd.part
class NumPyInit:
    def build(self):
        return lambda key, shape, dtype: RNG.normal(size=shape)


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(task=ByNumPy("task")), "draw of ByNumPy gives something else key jax.random"),
        (dict(layers=(ByNumPy("cell"),)), "init of ByNumPy gives something else key jax.random"),
        (dict(layers=(sd.LSTM(3, u=NumPyInit()),)), "init of LSTM gives something else key jax.random"),
        (dict(layers=(sd.Zoneout(sd.LSTM(3, u=NumPyInit())),)), "init of Zoneout gives something else key jax.random"),
    ],
)
def test_what_draws_by_other_means_than_its_key_is_refused(fields, words):
    sentence = refusal(lambda: sd.Spec(batch=4, holdout=4, **fields))
    assert all(word in sentence for word in words.split(" ")), sentence


@sd.part
class Odd:
    """Draws what is no array of numbers."""

    what: str

    def build(self):
        def draw(key, b):
            xs = jnp.zeros((3, b, 1))
            table = pd.DataFrame(np.zeros((b, 1)))
            ys = {
                "table": table,
                "words": ["a"] * b,
                "array of words": np.full(b, "a"),
                "keys": jax.random.split(key, b),
            }
            return xs, ys[self.what]

        return sd.task(draw, loss=lambda p, y: (p[..., 0] - y) ** 2, inputs=1, outputs=1)


@pytest.mark.parametrize(
    ("what", "returned"),
    [("table", "a DataFrame"), ("words", "a str"), ("array of words", "an array of <U1"), ("keys", "an array of key<")],
)
def test_a_draw_of_anything_but_numbers_is_refused(what, returned):
    sentence = refusal(lambda: sd.Spec(batch=4, holdout=4, task=Odd(what)))
    assert f"draw of Odd returns {returned}" in sentence and "must return arrays" in sentence


def test_a_step_that_gives_complex_numbers_for_a_real_carry_is_refused():
    # A cast would drop their imaginary half.
    cell = sd.cell(lambda key: jnp.ones(()), lambda p, h, x: h * 1j, lambda b: jnp.zeros((*b, 3)))
    with pytest.raises(sd.ConfigError, match="complex"):
        jax.eval_shape(lambda: cell.nonlinearity(jnp.ones(()), cell.initial_carry((2,)), jnp.ones((2, 1)), ()))


@pytest.mark.parametrize("begun", [jnp.int32, bool])
def test_a_step_that_gives_more_than_its_carry_can_hold_is_refused(begun):
    first = {"h": jnp.zeros((2, 3)), "n": jnp.zeros(2, begun)}
    cell = sd.cell(lambda key: jnp.ones(()), lambda p, c, x: c | {"n": c["n"] + 0.5}, lambda b: first)
    with pytest.raises(sd.ConfigError, match="float32 for a carry of"):
        jax.eval_shape(lambda: cell.nonlinearity(jnp.ones(()), cell.initial_carry((2,)), jnp.ones((2, 1)), ()))


def counted(n, x):
    return n * jnp.uint32(1664525) + jnp.uint32(1013904223)


BESIDE = {  # what stands beside h in a carry, its step, and what h reads of it
    "complex": (jnp.full(3, 0.5 + 0.25j, jnp.complex64), lambda z, x: z * jnp.exp(0.5j) + x, jnp.imag),
    "uint32": (jnp.full(3, 2**31 + 1, jnp.uint32), counted, lambda n: (n % 7).astype(jnp.float32)),
    "int32": (jnp.full(3, -(2**31) + 1, jnp.int32), lambda n, x: n + 16777217, lambda n: (n % 7).astype(jnp.float32)),
    "int8": (jnp.full(3, -5, jnp.int8), lambda n, x: n + jnp.int8(1), lambda n: n.astype(jnp.float32)),
    "bool": (jnp.zeros(3, bool), lambda n, x: ~n, lambda n: n.astype(jnp.float32)),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_h_keeps_all_of_its_bits(name):
    begun, along, read = BESIDE[name]

    def step(p, carry, x):
        z = along(carry["z"], x)
        return {"z": z, "h": jnp.tanh(p * carry["h"] + read(z) * x)}

    def first(batch):
        return {"h": jnp.zeros((*batch, 3)), "z": jnp.broadcast_to(begun, (*batch, 3))}

    made, xs = sd.cell(lambda key: jnp.float32(0.5), step, first), jax.random.normal(jax.random.key(0), (4, 2, 3))

    def ours(p):
        carry = made.initial_carry((2,))
        for x in xs:
            carry = cells.step(made, p, carry, x)
        return carry.h

    def plain(p):
        carry = first((2,))
        for x in xs:
            carry = step(p, carry, x)
        return carry["h"]

    with lenient():
        np.testing.assert_allclose(ours(0.5), plain(0.5), rtol=1e-6)
        given = (jnp.float32(0.5),), (jnp.float32(1.0),)
        np.testing.assert_allclose(jax.jvp(ours, *given)[1], jax.jvp(plain, *given)[1], rtol=1e-6)


def test_a_batch_that_is_always_the_same_is_no_fault():
    check_repeats("it", lambda key: jnp.asarray(np.array([1.0, np.nan])) + jax.random.normal(key), jax.random.key(0))
    assert sd.Spec(task=ByNumPy("fixed"), batch=4, holdout=4).steps == 5
