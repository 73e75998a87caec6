"""Laws of `init`: every run begins at the parameters that are given, with everything else as always; killed and resumed
it ends the same; and what does not fit is one sentence, before anything is written."""

import dataclasses
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _digests import digests
from _processes import Process
from _training import having
from _weights import same
from test_experiments import refusal, smoke

import seqdyn
from seqdyn import ConfigError, Experiment, Spec, grid
from seqdyn.learn import start, train
from seqdyn.numbers import Numbers
from seqdyn.runs import manifest, sweep
from seqdyn.runs.axes import shapes
from seqdyn.runs.checkpoint import digest
from seqdyn.runs.run import run
from seqdyn.runs.script import fingerprint

X64 = False
SIZES = {"steps": 5, "batch": 4, "holdout": 8, "hidden": (3,)}
SPEC = Spec("adding", cell="lstm", **SIZES)
RNN = Spec("adding", cell="rnn", **SIZES)


def experiment(updates=4, spec=RNN, **axes):
    axes = {"lr": [1e-30, 0.1], "seeds": 2} | axes
    return Experiment("start", spec, grid(**axes), updates, chunk=2, probe_every=2, tile=2, probes=())


STILL, MOVED = (0, 1), (2, 3)  # runs at a rate that moves no parameter, and at 0.1


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    return run(experiment(), tmp_path_factory.mktemp("runs") / "parent", verify=False)


@pytest.fixture(scope="module")
def child(parent, tmp_path_factory):
    """Begins where the parent's run 3 has ended."""
    out = tmp_path_factory.mktemp("runs") / "child"
    return run(experiment(), out, verify=False, init=seqdyn.restore(parent, 3))


def test_every_run_begins_at_the_parameters_that_are_given(parent, child):
    given = seqdyn.restore(parent, 3)
    for still in STILL:
        same(seqdyn.restore(child, still), given)
    for moved in MOVED:
        assert digest(seqdyn.restore(child, moved)) != digest(given)
    ds = seqdyn.load(child)
    assert (ds.test_loss.isel(probe=0) == seqdyn.load(parent).test_loss.isel(run=3, probe=-1)).all()
    assert ds.loss[0, 0] == ds.loss[2, 0] != ds.loss[1, 0]  # the seed still draws the data


def test_given_what_its_seed_draws_a_run_has_the_bits_that_it_has_without(parent, tmp_path):
    """So nothing else than parameters is taken along, and nothing else is begun in another way."""
    tile = experiment().layout.tiles[1]
    runs, real = sweep.tile_runs(experiment(), tile), sweep.real(experiment(), tile)
    drawn = jax.tree.map(lambda leaf: leaf[1], sweep.programs(RNN, 1).init(runs, real, None).params)
    out = run(experiment(), tmp_path / "run", verify=False, init=drawn)
    there, here = (seqdyn.load(one).isel(run=3).load() for one in (parent, out))
    for name in there.data_vars:
        np.testing.assert_array_equal(there[name], here[name])
    same(seqdyn.restore(out, 3), seqdyn.restore(parent, 3))
    assert "init" not in manifest.read(parent)


@pytest.mark.slow
def test_starts_are_an_axis(parent, tmp_path):
    """Each spec begins at its own, after a kill without `init`, and so do runs that are added."""
    given = {f"from {number}": seqdyn.restore(parent, number) for number in (2, 3)}
    named = [grid(dataclasses.replace(RNN, name=name), lr=1e-30, seeds=2) for name in given]
    e = Experiment("starts", named, updates=2, chunk=2, probe_every=2, tile=2, probes=())
    out = run(e, tmp_path / "out", verify=False, init=given)
    shutil.rmtree(out / "checkpoints" / "tile-0001")  # as if this tile had not begun
    run(e, out, verify=False)
    seqdyn.extend(out, seeds=[2], verify=False)
    ds = seqdyn.load(out)
    assert sorted(ds["label"].values.tolist()) == ["from 2"] * 3 + ["from 3"] * 3
    for number, label in enumerate(ds["label"].values.tolist()):
        same(seqdyn.restore(out, number), given[label])
    there = manifest.read(out)["init"]
    assert there["starts"] == [*given] and [[p["run"] for p in of] for of in there["parents"]] == [[2], [3]]
    assert seqdyn.replay(out, 3, 0, 1).loss.values.tolist() == [float(ds.loss[3, 0])]


@pytest.mark.slow
def test_it_goes_on_with_other_data_of_another_length_batch_and_optimiser(parent, tmp_path):
    """The loss before the first update is that of the given network on the new data, by NumPy."""
    given, rng = seqdyn.restore(parent, 3), np.random.default_rng(0)
    made = {k: (rng.normal(size=(6, 7, 2)), np.full(6, 7), rng.normal(size=6)) for k in ("train", "validation", "test")}
    same = dict(steps=7, features=2, classes=0, batch=3, hidden=(3,), optimizer="momentum", clip="norm")
    spec = Spec("labelled", cell="rnn", **same)

    def e(data):
        noted = {"data": fingerprint(data)}
        return Experiment("other", spec, grid(seeds=1, lr=0.01), 2, chunk=2, probe_every=2, probes=(), settings=noted)

    out = run(e(made), tmp_path / "out", made, verify=False, init=given)
    (layer,), readout = jax.tree.map(np.asarray, (given.layers, given.readout))
    h = np.zeros((6, 3))
    for x in made["test"][0].swapaxes(0, 1):
        h = np.tanh(x @ layer.w + h @ layer.u + layer.b)
    right = np.mean(((h @ readout.w + readout.b)[:, 0] - made["test"][2]) ** 2)
    np.testing.assert_allclose(seqdyn.load(out).test_loss.values[0, 0], right, rtol=1e-5)
    noted = manifest.read(out)["init"]
    assert noted["sha256"] == digest(start.named(given)) and noted["parents"][0]["path"] == str(parent.resolve())
    assert digest(seqdyn.restore(out, 0)) != digest(given)
    third = made | {"train": made["test"]}
    with pytest.raises(ConfigError, match="settings.data.train is"):
        run(e(third), out, third, verify=False)


@pytest.mark.parametrize(
    "given, said",
    [
        (["a"], "init has parameters for a; the specs are a, b: each must have its own."),
        (["a", "b", "c"], "init has parameters for a, b, c; the specs are a, b: each must have its own."),
        (["a", "b"], "init['b'] has layer0/w [2, 3]; b has [2, 12]."),
    ],
)
def test_starts_that_do_not_fit_are_one_sentence(given, said, tmp_path):
    params = {name: drawn(SPEC if name != "b" else RNN) for name in given}
    specs = tuple(dataclasses.replace(SPEC, name=name) for name in "ab")
    with pytest.raises(ConfigError, match="^" + re.escape(said)):
        run(Experiment("starts", specs, grid(seeds=1), 2, chunk=2), tmp_path / "out", init=params)
    assert not (tmp_path / "out").exists()


def test_the_manifest_has_the_parents_and_a_digest(parent, child):
    said = manifest.read(child)["init"]
    assert said["parents"] == [{"path": str(parent.resolve()), "run": 3, "step": 4, "best": False}]
    assert said["sha256"] == digest(start.named(seqdyn.restore(parent, 3)))


def test_tiles_that_had_not_begun_begin_there_too_after_a_kill_without_init(child, tmp_path):
    shutil.copytree(child, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "tile-0001")
    run(experiment(), tmp_path / "run", verify=False)
    assert digests(tmp_path / "run") == digests(child)


@pytest.mark.slow
def test_to_go_on_needs_no_init_and_what_is_lost_is_asked_for(parent, child, tmp_path):
    given = seqdyn.restore(parent, 3)
    out = run(experiment(2), tmp_path / "run", verify=False, init=given)
    run(experiment(4), out, verify=False)
    assert digests(out) == digests(child)
    shutil.rmtree(out / "checkpoints")
    (out / "init.safetensors").write_bytes(b"torn")
    with pytest.raises(ConfigError, match="init.safetensors, which the runs start from, is damaged .* give init again"):
        run(experiment(4), out, verify=False)
    run(experiment(4), out, verify=False, init=given)
    assert digests(out) == digests(child)


def test_another_init_is_refused_and_changes_nothing(parent, child, tmp_path):
    before = manifest.read(child)
    with pytest.raises(ConfigError, match="began from other parameters: the digest of init is"):
        run(experiment(), child, verify=False, init=seqdyn.restore(parent, 2))
    with pytest.raises(ConfigError, match="began without init; leave it out"):
        run(experiment(), parent, verify=False, init=seqdyn.restore(parent, 2))
    assert manifest.read(child) == before and "init" not in manifest.read(parent)


@pytest.mark.torch
def test_an_experiment_begins_at_pytorchs_weights_and_a_trained_run_leaves_for_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra 'torch')")
    net = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(2, 3), "readout": torch.nn.Linear(3, 1)})

    def predicted(xs):
        return net["readout"](net["rnn"](torch.tensor(np.asarray(xs)))[0][-1])[:, 0].detach().numpy()

    out = run(experiment(spec=SPEC), tmp_path / "run", verify=False, init=seqdyn.io.from_torch(net, SPEC))
    assert manifest.read(out)["init"]["parents"] == [{"framework": "PyTorch"}]
    batch = train.training_batch(having(SPEC, Numbers(seed=1)), None, 0)
    loss = np.mean((predicted(batch.xs) - np.asarray(batch.ys).reshape(-1)) ** 2)
    np.testing.assert_allclose(seqdyn.load(out).loss.isel(run=3, step=0), loss, rtol=1e-6)
    net.load_state_dict(seqdyn.io.to_torch(seqdyn.trained(out, 3)))
    xs = np.asarray(batch.xs)
    np.testing.assert_allclose(seqdyn.predict(out, 3, xs.swapaxes(0, 1)), predicted(xs), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_example_takes_pytorchs_lstm_on_and_brings_it_back(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed (the extra 'torch')")
    process = Process(["experiments/own/from_torch.py", tmp_path / "out"], cwd=tmp_path)
    said = process.finish()
    assert process.returncode == 0, said
    found = re.search(r"test loss (\S+) as it came, (\S+) after .*, (\S+) in PyTorch", said)
    first, last, back = map(float, found.groups())
    assert last < 0.01 < first < 0.167 and abs(back - last) < last


# --- what fits ----------------------------------------------------------------------------------------------


def drawn(spec):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes(spec).params)


def other(**changes):
    return Spec(**({"task": "adding", "cell": "lstm"} | SIZES | changes))


def nan():
    params = drawn(SPEC)
    params.layers[0].w[0, 0] = np.nan
    return params


REFUSED = {
    "init has layer0/w [2, 16]; lstm has [2, 12].": lambda: drawn(other(hidden=(4,))),
    "init has layer0/bn, [3], which lstm has not.": lambda: drawn(other(cell="gru")),
    "init has layer0/w [2, 3]; lstm has [2, 12].": lambda: drawn(other(cell="rnn")),
    "init has layer1/w, [3, 12], which lstm has not.": lambda: drawn(other(hidden=(3, 3))),
    "init has layer0/gain_x, [12], which lstm has not.": lambda: drawn(other(normalise="layer")),
    "init has no layer0/w, which lstm has, [2, 12].": lambda: {"w": np.zeros(3)},
    "layer0/w of init has nan; it must be finite.": nan,
    "init is 'runs/a'; it must be parameters, as seqdyn.restore('runs/a', run), or seqdyn.io.load": lambda: "runs/a",
    "init['lstm'] is 'runs/a'; it must be parameters": lambda: {"lstm": Path("runs/a")},
    "init is a SimpleNamespace of PyTorch; it must be seqdyn.io.from_torch of it.": lambda: SimpleNamespace(
        state_dict=dict
    ),
    "init has rnn, gru; the specs are lstm.": lambda: {"rnn": "runs/a", "gru": drawn(SPEC)},
    "layer0/w of init has the type <U1; it must be float32.": lambda: drawn(SPEC)._replace(
        layers=(drawn(SPEC).layers[0]._replace(w=np.full((2, 12), "a")),)
    ),
    "init has log_alpha/layer0/u, [3, 12], which lstm has not (gates of l0: seqdyn.learn.model.acting_params": lambda: (
        drawn(other(penalties=("l0",)))
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_fit_is_one_sentence_before_anything_is_written(sentence, tmp_path):
    with pytest.raises(ConfigError) as said:
        run(experiment(spec=SPEC), tmp_path / "run", init=REFUSED[sentence]())
    assert sentence in str(said.value) and "\n" not in str(said.value)
    assert not (tmp_path / "run").exists()


def test_all_specs_must_fit(tmp_path):
    two = Experiment("two", (SPEC, other(cell="gru")), grid(), 2)
    with pytest.raises(ConfigError, match="init has no layer0/bn, which gru has"):
        run(two, tmp_path / "run", init=drawn(SPEC))


def begun(spec, given):
    found = start.fitted(shapes(spec).params, start.named(given), "init", spec.label)
    return train.init(having(spec, Numbers().arrays()), None, jax.tree.map(jnp.asarray, found))


@pytest.mark.parametrize("kind", ["readout", "embedding", "log_alpha"])
def test_a_part_that_is_none_begins_as_always(kind):
    spec = Spec("labelled", vocabulary=5, embedding=2, penalties=("l0",), **SIZES)
    params, always = drawn(spec), train.init(having(spec, Numbers().arrays()))
    found = begun(spec, params._replace(**{kind: None}))
    same(getattr(found.params, kind), getattr(always.params, kind))
    rest = {name for name in params._fields if name != kind}
    for name in rest:
        same(getattr(found.params, name), jax.tree.map(jnp.asarray, getattr(params, name)))
    same(found.opt, always.opt)


def test_running_statistics_come_along_unless_they_are_none():
    spec = other(cell="rnn", normalise="batch_drive")
    params, always = drawn(spec), train.init(having(spec, Numbers().arrays()))
    layer = params.layers[0]
    same(begun(spec, params).params, jax.tree.map(jnp.asarray, params))
    found = begun(spec, params._replace(layers=(layer._replace(statistics=None),)))
    same(found.params.layers[0].statistics, always.params.layers[0].statistics)
    same(found.params.layers[0].w, jnp.asarray(layer.w))


def test_parameters_of_a_network_fit_by_their_paths():
    made = {"a": (jnp.zeros(2), jnp.zeros(())), "n": jnp.zeros(3, int), "c": jnp.zeros(2, jnp.complex64)}
    given = {"a": [np.ones(2), np.float64(2)], "n": np.arange(3), "c": np.full(2, 1j, np.complex64)}
    found = start.placed(made, start.fitted(made, start.named(given), "init", "mine"))
    assert found["a"][1] == 2 and found["n"][2] == 2 and found["c"][0] == 1j and found["n"].dtype == made["n"].dtype
    for change, sentence in {
        "a": "init has no a/0, which mine has, [2].",
        "n": "init has no n, which mine has, [3].",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(sentence)):
            start.fitted(made, start.named({k: v for k, v in given.items() if k != change}), "init", "mine")
    with pytest.raises(ConfigError, match="n of init has the type float64; it must be int32."):
        start.fitted(made, start.named(given | {"n": np.ones(3)}), "init", "mine")
    with pytest.raises(ConfigError, match="two arrays of the name a/b"):
        start.names({"a/b": 1, "a": {"b": 2}})


def test_numbers_of_other_types_are_cast():
    given = jax.tree.map(np.float64, drawn(SPEC))
    same(begun(SPEC, given).params, jax.tree.map(jnp.asarray, drawn(SPEC)))


@pytest.mark.slow
def test_scripts_keep_states_and_start_from_them(tmp_path):
    small = ("--cells", "rnn", "--no-verify")
    smoke("gating", tmp_path / "first", *small, "--keep", "0,3")
    first = tmp_path / "first" / "T_10"
    smoke("gating", second := tmp_path / "second", *small, "--init", f"{first}:1:3")
    parents = [{"path": str(first), "run": 1, "step": 3, "best": False}]
    assert manifest.read(second / "T_10")["init"]["parents"] == parents
    for init, sentence in {"first": "RUN_DIR:RUN", f"{first}:9": "run is 9", f"{first}:1:4": "after 0, 3, 20"}.items():
        assert sentence in refusal("gating", "--smoke", "--out", tmp_path / "none", "--init", init)
    assert "keep" in refusal("gating", "--smoke", "--out", tmp_path / "none", "--keep", "some")
    assert not (tmp_path / "none").exists()
