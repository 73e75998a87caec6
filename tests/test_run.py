"""Laws of `seqdyn.runs.run` and of what it leaves on disk, in one process."""

import dataclasses
import errno
import functools
import json
import os
import re
import shutil
import socket
import warnings

import jax
import numpy as np
import pytest
from _digests import digests
from _refusals import refusal

import seqdyn
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs import checkpoint, elsewhere, lock, manifest, script, sweep
from seqdyn.types import ConfigError

X64, OPTIMISED, DEVICES = False, True, 2
# At H = 16 vmapped and mapped runs happen to agree, at H = 64 they do not.
TINY = dict(steps=8, batch=3, hidden=(64,), holdout=6)


def experiment(tile=5, updates=6, specs=("rnn", "lstm"), **axes):
    axes = dict(seeds=2, gain=[0.5, 1.0], clip=[0.1], lr=1e-2) | axes
    specs = tuple(Spec(cell=c, **TINY) for c in specs)
    return Experiment("tiny", specs, grid(**axes), updates=updates, chunk=2, probe_every=2, tile=tile)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Verified as any other, but what is found is given: two more programs are not compiled for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqdyn.runs.verified.gradient_error", lambda *_: 2e-7)
        return seqdyn.run(experiment(), tmp_path_factory.mktemp("run") / "out")


def test_records_have_named_axes_with_the_grid_as_coordinates_of_run(out):
    ds = seqdyn.load(out)
    assert ds.adjoint_norm.dims == ("run", "step", "layer", "time")
    assert dict(ds.sizes) | {"gate": 5, "group": 4} == dict(ds.sizes)
    assert dict(run=8, step=6, layer=1, time=8, probe=4).items() <= dict(ds.sizes).items()
    assert list(ds["label"].values) == ["rnn tanh"] * 4 + ["lstm"] * 4
    assert list(ds["gain"].values) == [0.5, 0.5, 1.0, 1.0] * 2
    assert list(ds["seed"].values) == [0, 1] * 4
    assert list(ds["probe_step"].values) == [0, 2, 4, 6]
    assert list(ds["lag"].values) == [7, 6, 5, 4, 3, 2, 1, 0]
    for name, variable in ds.data_vars.items():
        assert variable.attrs["long_name"] and variable.attrs["units"], name


def test_every_update_of_every_run_is_recorded_and_c_only_where_there_is_one(out):
    ds = seqdyn.load(out).load()
    assert ds.recorded.all() and ds.finite.all()
    for name in ("loss", "grad_norm", "clip_scale", "adjoint_norm", "carried_norm", "group_update_norm", "test_loss"):
        assert np.isfinite(ds[name]).all(), name
    lstm = ds["label"] == "lstm"
    assert np.isfinite(ds.adjoint_norm_c[lstm.values]).all() and np.isnan(ds.adjoint_norm_c[~lstm.values]).all()
    assert (np.isfinite(ds.spectral_radius).sum("gate") == np.where(lstm, 4, 1)[:, None, None]).all()


def test_the_spectral_radius_at_the_first_probe_is_the_gain_of_an_orthogonal_matrix(out):
    ds = seqdyn.load(out).load()
    radius = ds.spectral_radius.isel(probe=0).max("gate").squeeze("layer")
    np.testing.assert_allclose(radius, ds["gain"], rtol=1e-5)


def test_a_run_in_a_grid_is_the_run_alone_bit_for_bit(out, tmp_path):
    alone = dataclasses.replace(experiment(tile=1, specs=("lstm",), gain=1.0, seeds=[1]), probes=())
    single = seqdyn.load(seqdyn.run(alone, tmp_path / "alone", verify=False)).load()
    ds = seqdyn.load(out).load()
    run = int(np.flatnonzero((ds["label"] == "lstm") & (ds["gain"] == 1.0) & (ds["seed"] == 1))[0])
    for name in ("loss", "adjoint_norm", "adjoint_norm_c", "carried_norm", "group_grad_norm", "test_loss"):
        assert ds[name][run].values.tobytes() == single[name][0].values.tobytes(), name
    assert checkpoint.digest(seqdyn.restore(out, run)) == checkpoint.digest(seqdyn.restore(tmp_path / "alone", 0))


@pytest.mark.slow
def test_tile_size_and_padding_change_no_bits(out, tmp_path):
    """Of a tile without padding that is not one run alone, of which the law before tells as much."""
    other = seqdyn.run(experiment(tile=4, specs=("rnn",)), tmp_path / "tile", verify=False)
    ours, theirs = seqdyn.load(out).load(), seqdyn.load(other).load()
    for name in ("loss", "adjoint_norm", "carried_norm", "group_update_norm", "test_loss"):
        assert ours[name][:4].values.tobytes() == theirs[name].values.tobytes(), name
    for run in range(4):
        assert checkpoint.digest(seqdyn.restore(out, run)) == checkpoint.digest(seqdyn.restore(other, run))


def test_a_diverging_neighbour_changes_no_bits_and_is_flagged(out, tmp_path):
    wild = seqdyn.run(experiment(gain=1.0, lr=[1e-2, 1e30]), tmp_path / "wild", verify=False)
    ds, calm = seqdyn.load(wild).load(), seqdyn.load(out).load()
    calm = calm.isel(run=calm["gain"] == 1.0)
    steady = np.isclose(ds["lr"], 1e-2)
    for name in calm.data_vars:
        assert ds[name][steady].values.tobytes() == calm[name].values.tobytes(), name
    diverged = ~ds.finite[~steady].all("step")
    assert diverged.all() and ds.recorded.all()
    first = (~ds.finite[~steady]).argmax("step").values
    assert (first > 0).all()
    for r, f in zip(np.flatnonzero(~steady), first, strict=True):
        assert np.isnan(ds.loss[r, f + 1 :]).all() and not ds.finite[r, f:].any()
        assert np.isnan(ds.test_loss[r, -1]) and np.isnan(ds.spectral_radius[r, -1]).all()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(seqdyn.restore(wild, int(r))))


def test_new_numbers_and_other_grids_recompile_nothing(tmp_path):
    seqdyn.run(experiment(seeds=[6]), tmp_path / "a", verify=False)  # programs are dropped where memory is short
    programs = [sweep.programs(spec, 1) for spec in experiment().specs]
    before = [p.chunk._cache_size() for p in programs]
    seqdyn.run(experiment(gain=[0.3], clip=[1.0, 9.0], lr=[3e-3], seeds=[7, 8]), tmp_path / "b", verify=False)
    assert [p.chunk._cache_size() for p in programs] == before and min(before) > 0


@pytest.mark.slow
def test_going_on_for_longer_equals_having_asked_for_it_at_once(out, tmp_path):
    """Also where chunks do not divide the updates: the last is cut, and begun again where it was."""
    short = experiment(specs=("rnn",))
    between, long = (dataclasses.replace(short, updates=n) for n in (9, 11))
    for each in (short, between, long):
        heard = []
        seqdyn.run(each, tmp_path / "grown", verify=False, on_chunk=heard.append)
        assert heard[-1].stop == each.updates == seqdyn.load(tmp_path / "grown").recorded.values[0].sum()
    assert (heard[0].start, heard[0].stop, heard[-1].looks) == (9, 10, range(6, 6))
    seqdyn.run(long, tmp_path / "at_once", verify=False)
    assert digests(tmp_path / "grown") == digests(tmp_path / "at_once")
    ds, uncut = seqdyn.load(tmp_path / "grown"), seqdyn.load(out).isel(run=slice(4))
    assert list(ds["probe_step"].values) == [0, 2, 4, 6, 8, 10]
    np.testing.assert_array_equal(ds["adjoint_norm"][:, :6], uncut["adjoint_norm"])
    with pytest.raises(ConfigError, match="11 updates and 6 were asked for; updates may only grow"):
        seqdyn.run(short, tmp_path / "grown", verify=False)


def test_another_experiment_is_refused_with_the_first_difference_and_nothing_changes(out):
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in out.rglob("*")}
    with pytest.raises(ConfigError, match=r"numbers.gain\[2\] is 1.0 there and 1.5 here"):
        seqdyn.run(experiment(gain=[0.5, 1.5]), out)
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in out.rglob("*")}


def test_of_what_differs_the_shortest_that_tells_it_is_said(out):
    named = tuple(dataclasses.replace(spec, name=spec.cell) for spec in experiment().specs)
    for wanted, words in (
        (dataclasses.replace(experiment(), specs=named), "specs[0].name is '' there and rnn here"),
        (experiment(specs=("rnn",)), "specs is a list of 2 there and a list of 1 here"),
        (experiment(seeds=500), "seed is [0, 1, 0, 1] there and a list of 1000 here"),
    ):
        assert words in refusal(seqdyn.run, wanted, out)


def test_a_folder_of_run_directories_names_them(out):
    for read in (seqdyn.load, manifest.read):
        assert f"it has no manifest.json; in it are those named {out.name}" in refusal(read, out.parent)


def test_a_directory_may_be_said_from_home(out, monkeypatch):
    monkeypatch.setenv("HOME", str(out.parent))
    there = f"~/{out.name}"
    assert seqdyn.io.parents.of(seqdyn.restore(there, 0))[0]["path"] == str(out.resolve())
    found = [seqdyn.load(at)["loss"] for at in (there, [there], out)]
    assert found[0].equals(found[2]) and (found[1].values == found[2].values).all()
    assert manifest.directory(there) == out


def test_a_directory_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="is not a run directory"):
        seqdyn.run(experiment(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("place", ["new/" + "n" * 300, "/proc/none", "closed/out", "closed", "unseen"])
def test_a_place_where_no_directory_can_be_made_is_a_sentence(tmp_path, place):
    (tmp_path / "closed").mkdir(mode=0o555)
    (tmp_path / "unseen").mkdir(mode=0o000)
    if os.geteuid() == 0 and place in ("closed/out", "closed", "unseen"):
        pytest.skip("root may write anywhere")
    for make in (
        functools.partial(seqdyn.run, experiment()),
        lambda path: elsewhere.Directory(path, 1, 1, {}),
        lambda path: script.launch(experiment(), script.Options(out=path)),
    ):
        sentence = refusal(make, tmp_path / place)
        assert re.search(r"be (a run|that of a new) directory \(.*\)(; choose another --out)?\.$", sentence)


def test_a_full_disk_is_not_the_place_s_fault(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        seqdyn.run(experiment(), tmp_path / "out")


def test_a_manifest_that_is_a_folder_is_a_sentence(tmp_path):
    (tmp_path / manifest.NAME).mkdir()
    assert "manifest.json cannot be read (Is a directory); it must be" in refusal(seqdyn.load, tmp_path)


@pytest.mark.parametrize("seconds", [float("nan"), -1, "20", None])
def test_a_time_between_checkpoints_that_never_comes_is_refused(tmp_path, seconds):
    with pytest.raises(ConfigError, match="checkpoint_seconds is .*; it must be a number of at least 0."):
        seqdyn.run(experiment(), tmp_path / "out", checkpoint_seconds=seconds)
    assert not (tmp_path / "out").exists()


def test_the_manifest_says_what_was_run_and_on_what(out):
    found = manifest.read(out)
    assert manifest.experiment(out).describe() == experiment().describe()
    assert found["versions"]["jax"] == jax.__version__ and found["backend"] == "cpu" and found["width"] == 1
    assert found["verified"] == {"rnn tanh": 2e-7, "lstm": 2e-7}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 99}'])
def test_a_damaged_manifest_is_one_sentence(damage, tmp_path):
    (tmp_path / "manifest.json").write_text(damage)
    with pytest.raises(ConfigError, match="manifest.json"):
        seqdyn.run(experiment(), tmp_path)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    e = experiment(specs=("rnn",))
    out = seqdyn.run(e, tmp_path / "out", verify=False, checkpoint_seconds=0)
    whole = digests(out)
    (tile,) = (out / "checkpoints").iterdir()
    assert sorted(int(p.name) for p in tile.iterdir() if p.name.isdigit()) == [4, 6]
    for file in (tile / "6").rglob("*"):
        if file.is_file() and file.stat().st_size > 0:
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
    with pytest.warns(UserWarning, match="passed over the checkpoint"):
        seqdyn.run(e, out, verify=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert digests(out) == whole


def test_restore_names_the_run_that_is_not_there(out):
    with pytest.raises(ConfigError, match="run is 8; .* holds runs 0 to 7"):
        seqdyn.restore(out, 8)


def test_the_best_of_a_run_without_early_stopping_is_refused(out):
    with pytest.raises(ConfigError, match="best is True"):
        seqdyn.restore(out, 0, best=True)


def test_restored_parameters_at_a_step_are_those_recorded_there(out):
    ds = seqdyn.load(out).load()
    u = np.asarray(seqdyn.restore(out, 3, step=6).layers[0].u, np.float64)
    radius = np.abs(np.linalg.eigvals(u)).max()
    np.testing.assert_allclose(ds.spectral_radius.isel(run=3, probe=-1, layer=0).max(), radius, rtol=1e-6)


def test_two_processes_do_not_train_in_one_directory(out):
    said = rf"another process trains in .*: host {socket.gethostname()}, process {os.getpid()}, since 20"
    with lock.held(out), pytest.raises(RuntimeError, match=said):
        seqdyn.run(experiment(), out)


def test_the_shard_that_ends_last_draws_though_another_was_behind_it_in_the_first_part(tmp_path, monkeypatch):
    parts = {name: experiment(updates=2, specs=("rnn",), gain=[0.5, 1.0, 1.5, 2.0]) for name in ("first", "second")}
    mine, other = (script.Options(out=tmp_path / "out", shard=f"{i}/2", verify=False) for i in range(2))
    run = script.run

    def meanwhile(e, out, *data, **options):
        run(e, out, *data, **options)
        if options["shard"].index == 0 and out.name == "first":
            with pytest.raises(script.Waiting, match="second: this shard is done"):
                script.launch_all(parts, other)

    monkeypatch.setattr(script, "run", meanwhile)
    assert script.launch_all(parts, mine) == {name: tmp_path / "out" / name for name in parts}


def test_another_jax_is_refused_unless_it_is_allowed_and_then_noted_and_verified_anew(out, tmp_path, monkeypatch):
    e, out = experiment(), shutil.copytree(out, tmp_path / "out")
    verified = []
    monkeypatch.setattr("seqdyn.runs.verified.gradient_error", lambda spec, *_: verified.append(spec) or 3e-7)
    found = manifest.read(out)
    manifest.write(out, found | {"versions": found["versions"] | {"jax": "0.0.1"}})
    with pytest.raises(ConfigError, match=f"jax 0.0.1 and this is {jax.__version__}.*--allow-version-drift"):
        seqdyn.run(e, out)
    with pytest.warns(UserWarning, match="begun on other versions"):
        seqdyn.run(e, out, allow_version_drift=True)
    noted = manifest.read(out)
    assert noted["versions"]["jax"] == "0.0.1" and noted["resumed_on"][0]["versions"] == found["versions"]
    assert noted["resumed_on"][0]["allowed_version_drift"] == ["jax"]
    assert {one.label for one in verified} == {one.label for one in e.specs}  # side by side, in any order
    assert noted["verified"] == dict.fromkeys(found["verified"], 3e-7)
    seqdyn.run(e, out)  # who went on once need not say so again
    assert len(verified) == 2


def test_other_versions_of_the_rest_are_noted(out, tmp_path):
    e, out = experiment(), shutil.copytree(out, tmp_path / "out")
    found = manifest.read(out)
    manifest.write(out, found | {"versions": found["versions"] | {"zarr": "0.0.1"}})
    with pytest.warns(UserWarning, match="begun on other versions"):
        seqdyn.run(e, out, verify=False)
    assert manifest.read(out)["resumed_on"][0]["versions"] == found["versions"]


def test_a_wrong_gradient_stops_the_run_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setattr("seqdyn.runs.verified.gradient_error", lambda *_: 0.3)
    with pytest.raises(RuntimeError, match="is 3.0e-01 away from autodiff's"):
        seqdyn.run(experiment(), tmp_path / "wrong")
    assert not (tmp_path / "wrong" / "records.zarr").exists()


def test_the_manifest_is_json_without_infinities(tmp_path):
    e = experiment(clip=[0.1, np.inf])
    text = json.dumps(e.describe(), allow_nan=False)
    assert json.loads(text)["hypers"]["clip"][-1] == "inf"


def test_scripts_of_before_find_run_where_it_was():
    assert seqdyn.run.run is seqdyn.run
