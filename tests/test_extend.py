"""Laws of `extend`: more runs in a directory that is there are those of an experiment that had them from the start, bit
for bit; what was there is left as it is; killed and called again it ends the same."""

import contextlib
import dataclasses
import itertools
import json
import shutil

import _own
import numpy as np
import pytest
from _digests import digests
from _processes import Process
from _refusals import refusal

import seqdyn as sd
from analysis import gradient_flow
from seqdyn.learn.config import experiment_from
from seqdyn.learn.extended import more
from seqdyn.runs import manifest, records
from seqdyn.runs.checkpoint import digest
from seqdyn.runs.extend import _extended
from seqdyn.runs.lock import Shard
from seqdyn.runs.why import diverged

X64 = False
SPEC = sd.Spec(steps=4, batch=4, hidden=(3,), holdout=4)
NEW = dict(seeds=[1], axes={"gain": [1.5]})
ALL = {"seeds": 2, "gain": [0.5, 1.0, 1.5]}


def experiment(updates=4, spec=SPEC, **others):
    axes = {"seeds": 1, "gain": [0.5, 1.0]} | others.pop("axes", {})
    return sd.Experiment(
        "extended",
        sd.grid(spec, **axes),
        **dict(updates=updates, chunk=2, probe_every=2, tile=3, probes=(), keep=2) | others,
    )


def run(e, out, *given, **others):
    return sd.run(e, out, *given, verify=False, **others)


def extend(out, *given, **others):
    return sd.extend(out, *given, **dict(verify=False) | others)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return run(experiment(), tmp_path_factory.mktemp("extend") / "small")


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """All from the start."""
    return run(experiment(axes=ALL), tmp_path_factory.mktemp("extend") / "big")


@pytest.fixture(scope="module")
def out(small, tmp_path_factory):
    there = tmp_path_factory.mktemp("extend") / "out"
    shutil.copytree(small, there)
    return extend(there, **NEW)


@pytest.fixture(scope="module")
def ends(out):
    return digests(out)


@pytest.fixture
def copy(small, tmp_path):
    return shutil.copytree(small, tmp_path / "copy")


def files(out, but=()):
    found = {path.relative_to(out): path for path in sorted(out.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.parts[0].startswith(tuple(but))}


def _known(values):
    return values if values.dtype.kind in "UO" else np.nan_to_num(values, nan=-1)


def order(ds, of):
    """Which run of `of` each run of `ds` is."""
    names = [n for n in ("label", "gain", "tau", "lr", "seed") if n in ds.coords]
    keys = [list(zip(*(_known(one[name].values).tolist() for name in names), strict=True)) for one in (ds, of)]
    assert len({*keys[0]}) == len(keys[0])
    return [keys[1].index(key) for key in keys[0]]


def assert_as_from_the_start(out, whole):
    """The data set of both, and what is restored."""
    ds, of = sd.load(out), sd.load(whole)
    places = order(ds, of)
    assert sorted(places) == [*range(of.sizes["run"])] and ds.run.values.tolist() == [*range(ds.sizes["run"])]
    assert ds.attrs == of.attrs and {*ds.variables} == {*of.variables}
    there = of.isel(run=places)
    for name in {*of.variables} - {"run"}:
        assert ds[name].dims == of[name].dims and ds[name].dtype == of[name].dtype, name
        assert ds[name].attrs == of[name].attrs, name
        np.testing.assert_array_equal(ds[name].values, there[name].values, err_msg=str(name))
    for run, place in [*enumerate(places)][::2]:
        assert digest(sd.restore(out, run)) == digest(sd.restore(whole, place)), run


# --- which runs -------------------------------------------------------------------------------------------------


def settings(runs):
    return {
        (one.label, float(one.numbers.gain[i]), float(one.numbers.lr[i]), int(one.numbers.seed[i]))
        for one in runs
        for i in range(len(one))
    }


def test_what_is_there_and_what_is_new_are_the_larger_grid_and_no_run_is_twice():
    gains, rates, seeds = [0.5, 1.0], [1e-3], [0, 1]
    old = [sd.grid(spec, seeds=seeds, gain=gains, lr=rates) for spec in (SPEC, sd.Spec(cell="lstm"))]
    for new_gains, new_rates, new_seeds in itertools.product([[], [2, 3.0]], [[], [0.1]], [[], [5, 3]]):
        axes = {name: values for name, values in (("gain", new_gains), ("lr", new_rates)) if values}
        if not axes and not new_seeds:
            continue
        new = more(old, new_seeds or None, axes)
        labels = [one.label for one in old]
        right = {*itertools.product(labels, gains + new_gains, rates + new_rates, seeds + new_seeds)}
        assert settings(new) | settings(old) == right
        assert sum(map(len, new)) == len(right) - len(settings(old))
        last = new[0].numbers
        if new_seeds:  # one setting's seeds follow each other
            assert len({*zip(last.gain[-2:].tolist(), last.lr[-2:].tolist(), strict=True)}) == 1


def test_what_is_no_product_gets_the_new_values_in_each_of_its_runs():
    ragged = [sd.grid(SPEC, seeds=2, gain=0.5), sd.grid(SPEC, seeds=[7], gain=1.0)]
    found = settings(more(ragged, None, {"lr": [0.1]}))
    assert found == {("rnn tanh", 0.5, 0.1, 0), ("rnn tanh", 0.5, 0.1, 1), ("rnn tanh", 1.0, 0.1, 7)}
    assert settings(more(ragged, [1], {})) == {("rnn tanh", 1.0, 1e-3, 1)}
    assert settings(more(ragged, 3, {})) == {
        *(("rnn tanh", 0.5, 1e-3, s) for s in (2,)),
        *(("rnn tanh", 1.0, 1e-3, s) for s in (0, 1, 2)),
    }


def test_a_number_of_one_spec_s_parts_is_an_axis_of_its_runs_alone():
    leaky = sd.grid(sd.Spec(task=_own.First(), layers=(_own.Leaky(3),)), seeds=2, tau=[2.0])
    words = sd.grid(sd.Spec(task=_own.First()), seeds=2)
    (new,) = more([leaky, words], None, {"tau": [3.0]})
    assert new.layers[0].tau.tolist() == [3.0, 3.0] and new.numbers.seed.tolist() == [0, 1]
    assert [len(one) for one in more([leaky, words], [9], {"tau": [3.0]})] == [4, 1]


@pytest.mark.parametrize(
    "given, said",
    [
        (dict(seeds=[0]), "seeds has 0, and all runs with it are there"),
        (dict(seeds=[5, 5]), "seeds has 5, and all runs with it are there"),
        (dict(seeds=1), "seeds is 1, and all runs with these seeds are there"),
        (dict(seeds=np.int64(1)), "and all runs with these seeds are there"),
        (dict(axes={"gain": 1.0}), "gain has 1.0, and all runs with it are there"),
        (dict(axes={"gain": np.float32(0.5)}), "gain has 0.5, and all runs with it are there"),
        (dict(seeds=[4], axes={"gain": [2.0, 1.0]}), "gain has 1.0"),
        (dict(seeds=[]), "seeds has no values"),
        (dict(axes={"gain": []}), "gain has no values"),
        (dict(seeds=0), "seeds is 0; it must be at least one"),
        (dict(seeds=[1.5]), "seeds is 1.5; it must be a whole number"),
        (dict(seeds="a"), "seeds is 'a'"),
        (dict(axes={"gain": [-1.0]}), "gain is -1.0; it must be at least 0"),
        (dict(axes={"gian": [2.0]}), "no axis 'gian'"),
        (dict(axes={"seed": [4]}), "give them as seeds="),
        (dict(axes=[2.0]), "axes is [2.0]; it must be a dict"),
        (dict(), "extend has nothing to add"),
        (dict(seeds=[4], probes="spectrum"), "probes is ('spectrum',)"),
        (dict(axes={"l1": 0.1}), "l1 is 0.1"),
        (dict(axes={"forget_bias": 2.0}), "forget_bias is 2.0, and no run would differ by it; it must have the cell"),
    ],
    ids=lambda given: str(given) if isinstance(given, dict) else "",
)
def test_what_cannot_be_added_is_one_sentence_and_nothing_is_written(given, said, small):
    before = files(small)
    assert said in refusal(extend, small, **given)
    assert files(small) == before


# --- as from the start ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes, named", [({"seeds": 2}, True), ({"gain": [0.5, 1.0, 1.5]}, True), ({"gain": 1}, False)])
def test_a_larger_experiment_in_its_place_is_told_of_extend(axes, named, small):
    said = refusal(run, experiment(axes=axes), small)
    assert ("add runs to it by seqdyn.extend, or choose another --out." in said) is named
    assert "seqdyn.extend" not in refusal(run, experiment(spec=dataclasses.replace(SPEC, cell="gru"), axes=axes), small)


def test_together_they_are_one_experiment_that_had_all_from_the_start(out, big, small):
    assert_as_from_the_start(out, big)
    for name, data in files(small).items():
        assert (out / name).read_bytes() == data, name
    ds, alone = sd.load(out), sd.load(small)
    np.testing.assert_array_equal(ds.gain.values[:2], alone.gain.values)
    np.testing.assert_array_equal(ds.loss.values[:2], alone.loss.values)


def test_what_is_read_of_it_is_what_is_asked_for(out, big):
    ds, of = sd.load(out), sd.load(big)
    of = of.isel(run=order(ds, of)).load()
    for at in (
        dict(run=4),
        dict(run=[5, 1], time=slice(1, 3)),
        dict(run=slice(None, None, -2), step=-1, time=[3, 0]),
        dict(run=[], layer=0),
        dict(run=np.arange(6) % 2 == 0, step=[0, 2]),
    ):
        np.testing.assert_array_equal(sd.load(out).adjoint_norm.isel(at).values, of.adjoint_norm.isel(at).values)


def test_the_first_number_of_each_part_follows_those_before(out):
    assert [manifest.first_run(part) for part in manifest.directories(out)] == [0, 2]


def test_the_same_call_again_changes_nothing(out):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name[0] != "."}
    extend(out, **NEW)
    extend(out, seeds=np.array([1]), axes={"gain": 1.5})
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name[0] != "."}
    assert before == after
    assert "seeds has 1" in refusal(extend, out, seeds=[1])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("where", ["records", pytest.param("manifest", marks=pytest.mark.slow)])
def test_killed_at_any_write_the_same_call_ends_with_the_same_bits(where, copy, ends, monkeypatch):
    of, name = {"records": (records.Store, "write"), "manifest": (manifest, "write")}[where]
    plainly, calls = getattr(of, name), []

    def killed(*given):
        calls.append(0)
        if len(calls) in (1, 3):
            if len(calls) == 3:
                plainly(*given)
            raise Killed
        plainly(*given)

    before = files(copy)
    monkeypatch.setattr(of, name, killed)
    for _ in range(5):
        try:
            extend(copy, **NEW, checkpoint_seconds=0.0)
            break
        except Killed:
            assert sd.load(copy).loss.isel(run=slice(2)).notnull().all()  # those there are can be read meanwhile
    assert len(calls) >= 3
    assert digests(copy) == ends
    assert {name: data for name, data in files(copy).items() if name.parts[0] != "more-1"} == before


def test_in_shards_stopped_and_gone_on_with_it_ends_with_the_same_bits(copy, ends, monkeypatch):
    """The tiles of the new runs are shared; a shard that is not the last leaves the others to theirs."""
    extend(copy, **NEW, shard="0/2")
    made = [1] * 2 + [1] * 3 + [0]  # a tile has three
    assert sd.load(copy).recorded.values.any(1).tolist() == made
    plainly, calls = records.Store.write, []

    def killed(*given):
        calls.append(plainly(*given))
        if len(calls) == 3:
            raise Killed

    monkeypatch.setattr(records.Store, "write", killed)
    for _ in range(2):
        with contextlib.suppress(Killed):
            extend(copy, **NEW, shard=Shard(1, 2))
    assert len(calls) > 3 and digests(copy) == ends


@pytest.mark.parametrize("shard", ["2/2", "1", (0, 2), Shard(3, 2)])
def test_what_is_no_shard_is_one_sentence(shard, small):
    assert "it must be i/n" in refusal(extend, small, seeds=[8], shard=shard)
    assert "it must be i/n" in refusal(run, experiment(), small, shard=shard)
    assert not (small / "more-1").exists()


@pytest.mark.slow
def test_runs_that_have_only_begun_are_there_without_records(copy, out, ends):
    e = manifest.experiment(out / "more-1")
    manifest.open_run(copy / "more-1", e, {})
    ds = sd.load(copy)
    assert ds.sizes["run"] == 6 and not ds.recorded.values[2:].any() and np.isnan(ds.loss.values[2:]).all()
    assert ds.gain.values.tolist() == sd.load(out).gain.values.tolist()
    assert sd.find(str(copy)).status.tolist() == ["finished"] * 2 + ["unfinished"] * 4
    assert "has no checkpoint of run 5" in refusal(sd.restore, copy, 5)
    extend(copy, **NEW)
    assert digests(copy) == ends


@pytest.mark.slow
def test_it_is_extended_twice_and_more_updates_come_to_all_of_it(copy, tmp_path):
    extend(copy, seeds=[1])
    extend(copy, axes={"gain": [1.5]})  # at all seeds, that which was added as well
    assert sd.load(copy).seed.values.tolist() == [0, 0, 1, 1, 0, 1]
    run(experiment(6), copy)
    ds = sd.load(copy)
    assert ds.sizes["step"] == 6 and ds.recorded.values.sum(1).tolist() == [6] * 2 + [4] * 4
    assert np.isnan(ds.loss.values[2:, 4:]).all() and ds.test_loss.shape == (6, 4)
    extend(copy, seeds=[1])
    extend(copy, axes={"gain": 1.5})
    assert_as_from_the_start(copy, run(experiment(6, axes=ALL), tmp_path / "whole"))


# --- read as one ------------------------------------------------------------------------------------------------


def test_runs_are_found_once_with_their_numbers(out, big):
    found = sd.find(str(out.parent / "**"))
    assert found.path.tolist() == [str(out)] * 6 and found.run.tolist() == [*range(6)]
    assert sd.find(str(out), gain=1.5).run.tolist() == sd.find(str(out), gain=1.5, status="finished").run.tolist()
    both = sd.load([out, big])
    assert both.run_there.values.tolist() == [*range(6), *range(6)]
    assert len(sd.find(str(out / "more-1"))) == 4  # on its own it is a directory like others
    assert "extends" in refusal(extend, out / "more-1", seeds=[8])
    assert f"{out} holds runs 0 to 5." in refusal(sd.restore, out, 6)


@pytest.mark.slow
def test_an_update_of_a_new_run_is_made_again_by_its_number(out, big):
    place = order(sd.load(out), sd.load(big))[5]
    ours, theirs = (sd.replay(of, run, 1, 3, ["grad_norm", "loss"]) for of, run in ((out, np.int64(5)), (big, place)))
    np.testing.assert_array_equal(ours.grad_norm.values, theirs.grad_norm.values)
    np.testing.assert_array_equal(ours.loss.values, sd.load(out).loss.isel(run=5, step=slice(1, 3)).values)
    assert int(ours.run) == 5


def test_what_is_damaged_or_gone_within_is_said(out, tmp_path):
    there = shutil.copytree(out, tmp_path / "out")
    shutil.copytree(there / "more-1", there / "more-2")
    shutil.rmtree(there / "more-1")
    assert "has more-2 and not all before it" in refusal(sd.load, there)
    (there / "more-2").rename(there / "more-1")
    text = (there / "more-1" / manifest.NAME).read_text()
    (there / "more-1" / manifest.NAME).write_text(text.replace('"seed"', '"sead"', 1))
    assert "damaged" in refusal(sd.load, there)
    shutil.rmtree(there / "more-1")
    (there / "more-1").mkdir()
    (there / "more-1" / "mine.txt").write_text("mine")
    assert sd.load(there).sizes["run"] == 2
    assert "is not a run directory" in refusal(extend, there, seeds=[4])


def test_other_versions_are_refused_and_other_hardware_is_said(copy):
    found = manifest.read(copy)
    manifest.write(copy, found | {"processor": "another"})
    with pytest.warns(UserWarning, match="was begun on other versions, hardware or code"):
        extend(copy, seeds=[2])
    manifest.write(copy, found | {"versions": found["versions"] | {"jax": "0.1"}})
    assert "was made on jax 0.1" in refusal(extend, copy, seeds=[3])
    assert manifest.directories(copy) == [copy, copy / "more-1"]


def test_what_another_loop_has_recorded_cannot_be_extended(copy):
    found = manifest.read(copy)
    (numbers,) = found["experiment"]["hypers"]
    unknown = numbers | {"momentum": ["nan"] * 2}
    manifest.write(copy, found | {"experiment": found["experiment"] | {"hypers": [unknown]}})
    assert "was recorded of another loop" in refusal(extend, copy, seeds=[4])


# --- instruments ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_new_instruments_look_at_the_new_runs_and_at_what_was_kept_of_the_old(copy, tmp_path):
    extend(copy, seeds=[1], probes="weights")
    extend(copy, axes={"gain": [1.5]}, probes=("weights",))
    assert_as_from_the_start(copy, run(experiment(axes=ALL, probes=("weights",)), tmp_path / "whole"))
    seen = sd.probe(copy, "weights", steps=[0, 4])
    np.testing.assert_array_equal(seen.spectral_radius.values, sd.load(copy).spectral_radius.values[:, [0, 2]])
    assert seen.run.values.tolist() == [*range(6)] and seen.probe_step.values.tolist() == [0, 4]
    assert seen.gain.values.tolist() == sd.load(copy).gain.values.tolist()


def test_an_instrument_alone_is_probe(copy, big):
    old = files(copy, but=["manifest", ".lock", "records.zarr"])
    extend(copy, probes="weights")
    assert manifest.directories(copy) == [copy]
    assert files(copy, but=["manifest", ".lock", "records.zarr"]) == old
    assert np.isfinite(sd.load(copy).spectral_radius).all()


@pytest.mark.slow
def test_without_kept_states_the_new_runs_alone_are_looked_at(tmp_path):
    out = run(experiment(keep=None), tmp_path / "out")
    with pytest.warns(UserWarning, match="has kept no states of its runs"):
        extend(out, seeds=[2], probes="weights")
    found = np.isfinite(sd.load(out).spectral_radius.values).all(axis=(1, 2, 3))
    assert found.tolist() == [False] * 2 + [True] * 2


# --- other experiments ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_parts_of_one_s_own_where_what_is_new_is_of_one_spec_alone(tmp_path):
    words = sd.Spec(task=_own.First(), cell="lstm", hidden=(2,), batch=4, holdout=4)

    def e(taus, seeds):
        runs = (sd.grid(words, seeds=seeds), sd.grid(_own.SPEC, seeds=seeds, tau=taus))
        return sd.Experiment("own", runs, updates=4, chunk=2, tile=2, probes=())

    out = run(e([2.0], 2), tmp_path / "out")
    code = f"import seqdyn; seqdyn.extend({str(out)!r}, seeds=[2])"
    process = Process(["-c", code])
    assert "is not known in this process; import _own before." in process.finish() and process.returncode
    extend(out, axes={"tau": [5.0]})
    assert len(manifest.read(out / "more-1")["experiment"]["specs"]) == 1
    assert_as_from_the_start(out, run(e([2.0, 5.0], 2), tmp_path / "whole"))


def test_numbers_that_one_of_several_specs_heeds_are_shared_still():
    specs = (SPEC, sd.Spec(cell="lstm", steps=6, batch=4, hidden=(2,), holdout=4, dropout="outputs"))

    def e(seeds):
        return sd.Experiment("two", specs, sd.grid(seeds, dropout=0.2), 4, 2, 2, tile=2, probes=(), lags=[0, 2, 5])

    read = experiment_from(json.loads(json.dumps(e(2).describe())))
    assert _extended([read], [5], {}, ()).describe() == e([5]).describe()


@pytest.mark.slow
def test_of_data_with_a_vocabulary_and_of_given_parameters(tmp_path):
    rng = np.random.default_rng(0)
    words = ["<pad>", "<start>", "<unk>", *"abcde"]
    data = {
        k: (rng.integers(3, 8, (8, 4)), np.full(8, 4), rng.integers(0, 2, 8)) for k in ("train", "validation", "test")
    }
    spec = sd.Spec("labelled", steps=4, vocabulary=len(words), embedding=2, batch=4, hidden=(3,))
    start = sd.restore(run(experiment(spec=spec), tmp_path / "before", data), 1)

    def e(**axes):
        return experiment(spec=spec, axes=axes)

    out = run(e(), tmp_path / "out", data, vocabulary=words, init=start)
    assert "data" in refusal(extend, out, seeds=[2])
    extend(out, **NEW, data=data)
    whole = run(e(**ALL), tmp_path / "whole", data, vocabulary=words, init=start)
    assert_as_from_the_start(out, whole)
    assert manifest.read(out / "more-1")["init"] == manifest.read(out)["init"]
    place = order(sd.load(out), sd.load(whole))[5]
    for text in ("a b", "c d e"):
        np.testing.assert_array_equal(sd.predict(out, 5, text), sd.predict(whole, place, text))


@pytest.mark.slow
def test_a_new_run_that_diverges_is_told_by_its_number(copy):
    extend(copy, axes={"lr": [1e30]})
    assert sd.find(str(copy), status="diverged").run.tolist() == [2, 3]
    assert diverged(copy) == [2, 3] and sd.why(copy, 1) is None
    assert str(sd.why(copy, 3, before=0)).startswith("run 3 (rnn tanh) broke at update ")


def test_every_run_has_its_criterion(out):
    rows = gradient_flow.summary(gradient_flow.read(out).ds, gradient_flow.read(out).criterion)
    assert sum(row["runs"] for row in rows) == 6
