"""Laws of several run directories: side by side each has what it has alone, and is found by what it is."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from _refusals import refusal

import seqdyn as sd
from seqdyn.runs import manifest, records
from seqdyn.runs.added import add
from seqdyn.runs.records import Store

X64 = False
SMALL = dict(batch=4, hidden=(3,), holdout=4)


@pytest.fixture(scope="module")
def outs(tmp_path_factory):
    """Of other lengths, updates, looks, cells and axes; the first run of the second diverges."""
    base = tmp_path_factory.mktemp("several")
    rnn = sd.grid(sd.Spec(steps=4, **SMALL), seeds=2, gain=[0.5, 1.0])
    lstm = sd.grid(sd.Spec(steps=6, cell="lstm", optimizer="sgd", **SMALL), lr=[1e30, 1e-3])
    runs = {"rnn": (rnn, 4, 2), "lstm": (lstm, 6, 3)}
    return [
        sd.run(sd.Experiment(name, of, updates=n, chunk=every, probe_every=every), base / name, verify=False)
        for name, (of, n, every) in runs.items()
    ]


def test_side_by_side_each_run_has_the_records_it_has_alone(outs):
    both = sd.load(outs)
    assert both.experiment.values.tolist() == ["rnn"] * 4 + ["lstm"] * 2 and both.run.values.tolist() == [*range(6)]
    assert both.lag.values.tolist() == [5, 4, 3, 2, 1, 0] and both.probe_step.values.tolist() == [0, 2, 3, 4, 6]
    for out in outs:
        alone, there = sd.load(out), both.isel(run=both.experiment.values == out.name)
        there = there.sel(step=alone.step, probe=alone.probe_step.values).isel(time=slice(-alone.sizes["time"], None))
        for name in alone.data_vars:
            of = there[name].sel({dim: alone[dim] for dim in ("gate", "group") if dim in alone[name].dims})
            of = of.transpose(*alone[name].dims)
            np.testing.assert_array_equal(of.values, alone[name].values, err_msg=name)
        for name in ("gain", "seed", "lr", "cell", "optimizer"):
            assert there[name].values.tolist() == alone[name].values.tolist()
    assert np.isnan(both.loss.values[:4, 4:]).all() and not both.recorded.values[:4, 4:].any()
    assert both.run_there.values.tolist() == [0, 1, 2, 3, 0, 1]


def test_a_number_gives_way_to_an_axis_of_its_name_that_another_directory_has(outs, tmp_path):
    """`window` is a number of a penalty, and an axis of what the probe of Jacobians has recorded."""
    other = shutil.copytree(outs[0], tmp_path / "probed")
    e = manifest.experiment(other)
    done = {tile.index: e.updates for tile in e.layout.tiles}
    store = Store(other / "records.zarr", e.layout)
    add(store, ["window_log_singular"], records._opened(other)[2], {}, done)
    manifest.note(other, lambda noted: noted | {"records": store.digest()})
    both = sd.load([outs[0], other])
    assert both.window.values.tolist() == sd.load(other).window.values.tolist() and both.sizes["run"] == 8
    assert both.numbers_window.values.tolist() == sd.load(outs[0]).window.values.tolist() * 2


def test_two_directories_of_one_name_are_told_apart_by_their_paths(outs, tmp_path):
    other = shutil.copytree(outs[0], tmp_path / outs[0].name)
    assert sd.load([outs[0], other]).experiment.values.tolist() == [str(outs[0])] * 4 + [str(other)] * 4
    assert "list of one or more" in refusal(sd.load, [])


def test_no_run_counts_twice_however_its_directory_is_spelled(outs, tmp_path, monkeypatch):
    a, b = outs
    monkeypatch.chdir(a.parent)
    (link := tmp_path / "link").symlink_to(a)
    for again in (a, f"{a}/", a.name, a.parent / "." / b.name / ".." / a.name, link):
        sentence = refusal(sd.load, [a, b, again])
        assert (
            sentence == f"path has {Path(again)} twice; each run directory must be in it once, or its runs count twice."
        )
    extended = shutil.copytree(a, tmp_path / "extended")
    sd.extend(extended, axes=dict(gain=[2.0]), verify=False)
    assert "more-1 twice" in refusal(sd.load, [extended, extended / "more-1"])
    assert sd.load([extended, a]).sizes["run"] == 10


def test_runs_are_found_by_what_they_are(outs):
    everywhere = str(outs[0].parent / "**")
    found = sd.find(everywhere)
    assert len(found) == 6 and found.status.tolist().count("diverged") == 1
    assert sd.find(everywhere, status="diverged")[["cell", "lr", "run"]].values.tolist() == [["lstm", 1e30, 0]]
    assert len(sd.find(everywhere, gain=(0.9, 1.1))) == 4 and len(sd.find(everywhere, cell=["rnn", "gru"])) == 4
    assert len(sd.find(everywhere, lr=lambda lr: lr > 1, optimizer="sgd")) == 1
    one = sd.find(str(outs[0]), seed=1, gain=0.5)
    assert one.updates.tolist() == [4]
    ds = sd.load(outs[0])
    latest = ds.test_loss.isel(probe=-1, run=(ds.seed.values == 1) & (ds.gain.values == 0.5)).values
    assert one.test_loss.tolist() == latest.tolist()
    assert "is no column" in refusal(sd.find, everywhere, gian=1.0)
    assert "matches no run directory" in refusal(sd.find, everywhere + "x")
    for none in ((1, 2, 3), (1.0, 0.5), (np.nan, 1.0)):
        assert "is no range; give two numbers, the lower first" in refusal(sd.find, everywhere, gain=none)
    assert (
        not len(sd.find(everywhere, cell=(1, 2))) and len(sd.find(everywhere, seed=range(3), status={"finished"})) == 5
    )


def test_words_are_found_in_any_case_parts_by_their_class_and_fields_at_their_default(outs):
    everywhere = str(outs[0].parent / "**")
    assert len(sd.find(everywhere, optimizer="Adam", gain=(np.float32(0.9), 1.1))) == 2
    assert len(sd.find(everywhere, optimizer=sd.SGD)) == len(sd.find(everywhere, optimizer=[sd.SGD(), "RMSprop"])) == 2
    assert len(sd.find(everywhere, lr=np.float32(1e-3))) == len(sd.find(everywhere, lr=[np.float64(1e-3)])) == 5
    assert len(sd.find(everywhere, gain=np.array(0.5))) == 2 and len(sd.find(everywhere, seed=np.arange(1, 3))) == 2
    assert len(sd.find(everywhere, normalise="none", spec_clip="norm", steps=[4, 6])) == 6
    assert not len(sd.find(everywhere, dropout="words", bidirectional=True))
    assert "status is 'done'; it must be one of" in refusal(sd.find, everywhere, status=["finished", "done"])


def test_a_directory_that_cannot_be_read_hides_no_other(outs, tmp_path):
    shutil.copytree(outs[0], tmp_path / "whole")
    shutil.copytree(outs[0], tmp_path / "damaged [1]")
    shutil.rmtree(tmp_path / "damaged [1]" / "records.zarr" / "loss")
    shutil.copytree(outs[0], tmp_path / "no folder of a tile")
    shutil.rmtree(tmp_path / "no folder of a tile" / "records.zarr")
    (tmp_path / "no folder of a tile" / "records.zarr").write_text("")
    with pytest.warns(UserWarning, match="left out"):
        found = sd.find(str(tmp_path / "**"))
    assert {Path(path).name for path in found.path} == {"whole"}
    with pytest.warns(UserWarning, match="left out"):
        assert "cannot be read" in refusal(sd.find, str(tmp_path / "damaged [1]"))
    assert "pattern is [" in refusal(sd.find, [tmp_path])
