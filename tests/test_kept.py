"""Laws of `Experiment.keep`: what is kept, that nothing else changes by it, and that nothing of it is lost."""

import dataclasses
import json
import shutil
import warnings

import jax
import numpy as np
import pytest
from _digests import digests
from _refusals import refusal

import seqdyn as sd
from seqdyn.learn.config import experiment_from
from seqdyn.runs import checkpoint, kept, manifest, records, run, sweep

X64, OPTIMISED = False, True
SPEC = sd.Spec(steps=6, batch=3, hidden=(4,), holdout=4)
RUNS = sd.grid(SPEC, seeds=3, lr=1e-2)


def experiment(keep="log", **others):
    return sd.Experiment("kept", RUNS, **dict(updates=16, chunk=8, probe_every=8, tile=2, keep=keep) | others)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return sd.run(experiment(), tmp_path_factory.mktemp("kept") / "out", verify=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return sd.run(experiment(None), tmp_path_factory.mktemp("kept") / "plain", verify=False)


def files(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.glob("kept/*/*"))}


def test_keeping_changes_no_bit_of_the_training_though_its_chunks_are_cut(out, plain):
    assert digests(out) == digests(plain)
    assert files(plain) == {} and not (plain / "kept").exists()


@pytest.mark.parametrize(
    "keep, right",
    [
        ("log", [0, 1, 2, 4, 8, 16]),
        (5, [0, 5, 10, 15]),
        (np.int64(16), [0, 16]),
        (np.array([3, 9, 3]), [3, 9]),
        (range(2, 9, 3), [2, 5, 8]),
        (None, []),
    ],
    ids=str,
)
def test_which_updates_are_kept(keep, right):
    e = experiment(keep)
    assert [*kept.wanted(e)] == right
    read = json.loads(json.dumps(e.describe(), allow_nan=False))
    assert [*kept.wanted(experiment_from(read))] == right
    assert [*kept.wanted(dataclasses.replace(e, updates=16))] == right


@pytest.mark.parametrize("keep", ["lin", True, 0, -1, 2.5, [], [-1], [1.5], [True], [17], {"a": 1}, np.ones((2, 2))])
def test_what_cannot_be_kept_is_one_sentence(keep):
    assert "keep" in refusal(experiment, keep)


def test_without_keep_an_experiment_is_described_as_before_there_was_any():
    assert "keep" not in experiment(None).describe()
    assert "keep is None there and log here" in refusal(sd.run, experiment(), _begun(None), verify=False)


def _begun(keep, folder=[]):  # noqa: B006
    import tempfile

    folder.append(tempfile.TemporaryDirectory())
    out = run.Path(folder[-1].name) / "out"
    manifest.open_run(out, experiment(keep), {})
    return out


def test_what_is_kept_is_the_state_at_that_update(out):
    """Of every run of every tile: as single updates make it, from the first on."""
    e = experiment()
    programs = sweep.programs(SPEC, 1)
    for tile in e.layout.tiles:
        runs, like = sweep.tile_runs(e, tile), run.abstract(e, tile)
        assert kept.steps(kept.of_tile(out, tile.index)) == [0, 1, 2, 4, 8, 16]
        states = programs.init(runs, sweep.real(e, tile), None)
        for n in range(17):
            if n in (0, 1, 2, 4, 8, 16):
                there = kept.read(kept.of_tile(out, tile.index), n, like)
                assert checkpoint.digest(there) == checkpoint.digest(states), (tile, n)
            if n < 16:
                states, _ = programs.chunk(runs, states, None, 1)


def test_parameters_are_restored_from_what_is_kept_and_a_refusal_says_what_there_is(out, plain):
    one, two = (np.asarray(sd.restore(out, 2, step=n).layers[0].u) for n in (0, np.int64(4)))
    assert not np.array_equal(one, two)
    again, first = np.asarray(sd.restore(out, 2, step=16).readout.w), np.asarray(sd.restore(plain, 2).readout.w)
    np.testing.assert_array_equal(again, first)
    assert "no run 2 after 3 updates; its parameters are there after 0, 1, 2, 4, 8, 16." in refusal(
        sd.restore, out, 2, step=3
    )
    assert "there after 16." in refusal(sd.restore, plain, 2, step=4)
    assert "step is -1" in refusal(sd.restore, out, 2, step=-1)


class Killed(BaseException):
    pass


def test_a_damaged_state_is_called_damaged_and_a_run_may_be_one_of_an_axis(out, tmp_path):
    run = sd.load(out)["run"][2]
    np.testing.assert_array_equal(sd.restore(out, run, step=4).readout.w, sd.restore(out, 2, step=4).readout.w)
    shutil.copytree(out, tmp_path / "out")
    for path in (tmp_path / "out" / "kept").glob("*/4.safetensors"):
        path.write_bytes(b"")
    assert "run 2 after 4 updates in a file that is damaged" in refusal(sd.restore, tmp_path / "out", 2, step=4)
    shutil.rmtree(tmp_path / "out" / "kept" / "tile-0000")
    shutil.copytree(out / "kept" / "tile-0001", tmp_path / "out" / "kept" / "tile-0000")
    with pytest.warns(UserWarning, match="8.safetensors: it is of runs with another"):
        assert "damaged or of other runs" in refusal(sd.restore, tmp_path / "out", 0, step=8)
    assert refusal(sd.restore, out, sd.load(out)["gain"]).startswith("run is <xarray.DataArray 'gain' (run:")


@pytest.mark.parametrize(
    "where", ["kept", *(pytest.param(one, marks=pytest.mark.slow) for one in ("records", "checkpoint"))]
)
def test_killed_before_and_after_every_write_it_ends_with_the_same_files(where, out, tmp_path, monkeypatch):
    of, name = {"kept": (kept, "save"), "records": (records.Store, "write"), "checkpoint": (checkpoint, "save")}[where]
    plainly, calls = getattr(of, name), []

    def killed(*given):
        calls.append(0)
        if len(calls) in (2, 4):
            if len(calls) == 4:
                plainly(*given)
            raise Killed
        plainly(*given)

    monkeypatch.setattr(of, name, killed)
    for _ in range(9):
        try:
            sd.run(experiment(), tmp_path / "out", verify=False, checkpoint_seconds=0.0)
            break
        except Killed:
            continue
    assert len(calls) > 4
    assert files(tmp_path / "out") == files(out) and digests(tmp_path / "out") == digests(out)


def test_what_is_kept_is_not_written_again_and_what_is_damaged_is(out, tmp_path):
    sd.run(experiment(), tmp_path / "out", verify=False)
    before, whole = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}, files(out)
    longer = experiment(updates=24)
    sd.run(longer, tmp_path / "out", verify=False)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    path = kept.of_tile(tmp_path / "out", 0) / "2.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (path.parent / ".4.safetensors.123").write_bytes(b"torn")
    (path.parent / "4.safetensors").unlink()
    assert "run 0 after 2 updates in a file that is damaged" in refusal(sd.restore, tmp_path / "out", 0, step=2)
    with pytest.warns(UserWarning, match="states in .* are damaged from update 1 on"):
        sd.run(longer, tmp_path / "out", verify=False)
    assert files(tmp_path / "out") == whole


def test_other_bits_are_not_written_over_what_is_kept(out, tmp_path):
    e = experiment()
    like, directory = run.abstract(e, e.layout.tiles[0]), tmp_path / "tile"
    states = kept.read(kept.of_tile(out, 0), 4, like)
    kept.save(directory, 4, states, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept.save(directory, 4, states, {})
    other = states._replace(params=jax.tree.map(lambda leaf: leaf + 1, states.params))
    with pytest.warns(UserWarning, match="has other bits than what is made here, and stays as it is"):
        kept.save(directory, 4, other, {})
    assert checkpoint.digest(kept.read(directory, 4, like)) == checkpoint.digest(states)
    (directory / "4.safetensors").rename(directory / "2.safetensors")
    assert kept.read(directory, 2, like) is None and kept.whole_until(directory, [2, 4], 4) == 1
