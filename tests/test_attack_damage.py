"""Damage on disk: every file of a run directory is flipped, cut, deleted, or replaced by a pickle, one at a time.

In every case the run ends with the numbers of one that nobody touched, or with a sentence; never with others.
"""

import os
import pickle
import shutil
import warnings

import numpy as np
import pytest

import seqdyn
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.learn.train import TrainState
from seqdyn.runs import checkpoint, manifest
from seqdyn.types import ConfigError

X64 = False
E = Experiment("damaged", (Spec(steps=6, batch=3, hidden=(4,), holdout=6),), grid(seeds=2), 6, 2, 2, tile=2)


class Bomb:
    """Unpickled, it says so."""

    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


def flip(path):
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def plant(path):
    path.write_bytes(pickle.dumps(Bomb()))


def delete(path):
    path.unlink()


HARM = (flip, cut, delete, plant)


@pytest.fixture
def attack(request):
    """Is this the long form?"""
    return request.config.getoption("--attack", default=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return seqdyn.run(E, tmp_path_factory.mktemp("whole") / "out", verify=False, checkpoint_seconds=0)


def digests(out):
    ds = seqdyn.load(out).load()
    return checkpoint.digest(dict(ds.data_vars)), [checkpoint.digest(seqdyn.restore(out, r)) for r in range(2)]


def damaged(whole, out, monkeypatch, wanted, harms=HARM):
    """Yields (what was done, the directory) for every file `wanted` and harm; checks that nothing planted ran."""
    monkeypatch.setenv("BOMB", str(out.with_name("bomb")))
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    for file in (f for f in files if wanted(f)):
        for harm in harms:
            if out.exists():
                shutil.rmtree(out)
            shutil.copytree(whole, out)
            harm(out / file)
            yield file, harm.__name__, out
            assert not out.with_name("bomb").exists(), f"a pickle in {file} was executed"


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_or_the_file_does_not_matter(
    whole, tmp_path, monkeypatch, attack, capsys
):
    wanted, idle = digests(whole), set()
    newest, harms = ("checkpoints", "tile-0000", "6"), HARM if attack else (flip,)
    for file, harm, out in damaged(whole, tmp_path / "out", monkeypatch, lambda f: f.parts[:3] == newest, harms):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            seqdyn.run(E, out, verify=False)
        if not any("passed over the checkpoint" in str(w.message) for w in said):
            idle.add(f"{'/'.join(file.parts[3:])} ({harm})")
        assert digests(out) == wanted, (file, harm)
    with capsys.disabled():
        print("\nfiles of a checkpoint that do not matter:", ", ".join(sorted(idle)) if attack else len(idle))


def test_a_checkpoint_of_other_runs_is_passed_over(tmp_path):
    ours, theirs = ({"seed": np.int32([0, seed])} for seed in (1, 2))
    marks, like = checkpoint.marks(ours), {"x": np.ones(3, np.float32)}
    checkpoint.save(tmp_path, 2, like, marks)
    checkpoint.save(tmp_path, 4, like, checkpoint.marks(theirs))
    with pytest.warns(UserWarning, match="4: it is of runs with another .'seed'"):
        assert checkpoint.latest(tmp_path, like, of=marks)[0] == 2
    newer = marks | checkpoint.marks({"new": np.zeros(2)})  # a number that the runs of an older version do not have
    assert checkpoint.latest(tmp_path, like, until=2, of=newer)[0] == 2
    checkpoint.save(tmp_path, 6, like)  # of an older version
    assert checkpoint.latest(tmp_path, like, of=marks)[0] == 6


def test_a_checkpoint_under_the_name_of_another_update_is_passed_over(tmp_path):
    states = TrainState({"w": np.ones(3, np.float32)}, None, np.int32([4, 4]), np.ones(2, bool))
    checkpoint.save(tmp_path, 4, states)
    (tmp_path / "²").mkdir()  # no number of updates
    (tmp_path / "4").rename(tmp_path / "2")
    with pytest.warns(UserWarning, match=r"2: its states are those after \[4\] updates"):
        assert checkpoint.restore(tmp_path, 2, states) is None
    (tmp_path / "2").rename(tmp_path / "4")
    assert checkpoint.latest(tmp_path, states)[0] == 4


def test_an_array_without_numbers_comes_back_as_it_was(tmp_path):
    states = {"empty": np.zeros((2, 0), np.int32), "x": np.ones(3, np.float32), "none": None}
    checkpoint.save(tmp_path, 2, states)
    found = checkpoint.restore(tmp_path, 2, states)
    assert checkpoint.digest(found) == checkpoint.digest(states) and found["none"] is None


@pytest.mark.slow
def test_damaged_records_are_made_again_and_never_read_as_numbers(whole, tmp_path, monkeypatch, attack, capsys):
    wanted, tried, refused, files = digests(whole), 0, 0, set()

    def wanted_file(f):
        return f.parts[0] == "records.zarr" and (attack or f.parts[1] in ("zarr.json", "loss"))

    for file, harm, out in damaged(whole, tmp_path / "out", monkeypatch, wanted_file):
        tried, files = tried + 1, files | {file}
        try:
            ds = seqdyn.load(out).load()
            assert checkpoint.digest(dict(ds.data_vars)) == wanted[0], f"silent damage: {harm} of {file}"
        except Exception as error:  # the codecs raise several kinds
            assert not isinstance(error, AssertionError), error
            refused += 1
        if harm == "flip" or attack:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                seqdyn.run(E, out, verify=False)
            if file.name != "zarr.json":
                assert any("they are made again" in str(w.message) for w in said), (file, harm)
            assert digests(out) == wanted, (file, harm)
    assert tried > 10
    if attack:
        arrays = {file.parts[1] for file in files} - {"zarr.json"}
        assert arrays == set(seqdyn.load(whole).data_vars)
        with capsys.disabled():
            print(f"\n{tried} damages of {len(files)} files of {len(arrays)} arrays, {refused} refused by load")


@pytest.mark.parametrize("harm", [flip, cut, plant])
def test_damaged_records_are_a_sentence_with_their_array_when_they_are_read(whole, tmp_path, monkeypatch, harm):
    out = shutil.copytree(whole, tmp_path / "out")
    monkeypatch.setenv("BOMB", str(tmp_path / "bomb"))
    files = sorted(path for path in (out / "records.zarr" / "loss" / "c").rglob("*") if path.is_file())
    harm(files[-1])
    for where in (out, [out]):
        with pytest.raises(RuntimeError, match=r"records.zarr/loss is damaged \(.+\); run its command again") as told:
            seqdyn.load(where).loss.load()
        assert "\n" not in str(told.value)
    np.testing.assert_array_equal(seqdyn.load(out).grad_norm, seqdyn.load(whole).grad_norm)  # the others are read
    assert not (tmp_path / "bomb").exists()


def test_any_flipped_bit_of_the_manifest_is_noticed(whole, tmp_path, attack):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    good = (out / manifest.NAME).read_bytes()
    positions = range(len(good) * 8) if attack else np.random.default_rng(0).integers(0, len(good) * 8, 300)
    for position in positions:
        bad = bytearray(good)
        bad[position // 8] ^= 1 << position % 8
        (out / manifest.NAME).write_bytes(bad)
        try:
            found = manifest.read(out)
        except ConfigError as error:
            assert manifest.NAME in str(error)
        else:  # white space, or the case of an escape
            (out / manifest.NAME).write_bytes(good)
            assert found == manifest.read(out), position


def test_a_manifest_leads_nowhere_else(whole, tmp_path):
    """No entry of it is used as a path: names that climb are refused as damage or compared, and never opened."""
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    found = manifest.read(out)
    manifest.write(out, found | {"experiment": found["experiment"] | {"name": "../../escape"}})
    with pytest.raises(ConfigError, match="another experiment: name is ../../escape there and damaged here"):
        seqdyn.run(E, out, verify=False)
    assert seqdyn.load(out).loss.shape == (2, 6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_nothing_in_the_library_unpickles():
    import re
    from pathlib import Path

    for path in Path(seqdyn.__file__).parent.rglob("*.py"):
        assert not re.search(r"\bpickle\b|allow_pickle=True|\bmarshal\b|\bdill\b|\bshelve\b", path.read_text()), path
