"""Laws of directories over each other: what differs is named, what is shared is compared, and the rest is said."""

import shutil
from typing import Any

import numpy as np
import pytest
import zarr
from _refusals import refusal

import seqdyn as sd
from analysis import claims, compare, compare_overlays, compare_sides
from seqdyn.runs.records import local

X64 = False
pytestmark = pytest.mark.slow
SMALL = dict(batch=4, hidden=(3,), holdout=4)
SEEDS = 6


@pytest.fixture(scope="module")
def outs(tmp_path_factory):
    """'b' goes on for longer than 'a'; 'c' has other lengths, another grid and a run that diverges."""
    base = tmp_path_factory.mktemp("compared")
    short = sd.grid(sd.Spec(steps=4, **SMALL), seeds=SEEDS, gain=[0.5, 1.0])
    long = sd.grid(sd.Spec(steps=6, optimizer="sgd", **SMALL), seeds=SEEDS, gain=[1.0, 2.0], lr=[1e30, 2e-3])
    runs = {"a": (short, 4), "b": (short, 6), "c": (long, 6)}
    return {
        name: sd.run(sd.Experiment(name, of, updates=n, chunk=2, probe_every=2), base / name, verify=False)
        for name, (of, n) in runs.items()
    }


def test_what_was_trained_twice_is_the_same_in_every_bit_that_both_have(outs):
    assert compare.first_setting(outs["a"], outs["a"]) is None
    assert compare.first_setting(outs["a"], outs["b"]) == ("updates", 4, 6)
    found = compare.read([outs["a"], outs["b"]])
    assert compare.first_bits(*found.sides) is None and (found.stop, found.look) == (4, 4)
    assert {row["verdict"] for row in compare.tests(found)} == {"equal in all"}
    assert any("bit for bit" in said for said in compare.text(found))
    assert any("b has made 6 updates" in said for said in compare.text(found))


@pytest.mark.parametrize(
    ("name", "where", "update"),
    [("adjoint_norm", (7, 3, 0, 2), 3), ("test_loss", (7, 1), 2), ("finite", (7, 1), 1), ("test_loss", (7, 2), 4)],
)
def test_the_first_update_and_variable_whose_bits_differ_are_named(outs, tmp_path, name, where, update):
    shutil.copytree(outs["a"], tmp_path / "other")
    array: Any = zarr.open_group(local(tmp_path / "other" / "records.zarr"), mode="r+")[name]
    value = array[where]
    array[where] = not value if name == "finite" else np.nextafter(value, np.float32(9))
    later = (8, min(where[1] + 1, array.shape[1] - 1), *where[2:])  # what differs afterwards is not the first
    array[later] = False if name == "finite" else 9.0
    one, other = compare.read([outs["a"], tmp_path / "other"]).sides
    assert compare.first_bits(one, other) == (update, name, 7, 7)
    assert compare.first_bits(other, one) == (update, name, 7, 7)


def test_the_first_setting_that_differs_is_named_whatever_the_updates(outs):
    assert compare.first_setting(outs["b"], outs["c"]) == ("specs[0].steps", 4, 6)


def test_runs_are_compared_within_their_setting_and_paired_by_seed(outs):
    found = compare.read([outs["a"], outs["b"], outs["c"]])
    assert (
        sorted(found.varied) == ["gain", "lr"] and len(found.shared) == 2
    )  # of 'a' and 'b' alone: rates differ in 'c'
    assert any("Only c has" in said for said in compare.text(found))
    a, b = found.sides[:2]
    b.values["training loss"][:] = a.values["training loss"] + np.tile([3.0, 1.0, 2.0], 4)
    a.values["horizon"][:] = b.values["horizon"][:] = np.nan
    b.values["test loss"][0] = a.values["test loss"][0] = np.inf
    rows = [row for row in compare.tests(found) if row["directory"] == "b"]
    assert {row["quantity"] for row in rows} == {"training loss", "test loss", "share clipped"}
    for row in rows:
        assert row["n"] == SEEDS and (row["verdict"] == "equal in all") == (row["quantity"] != "training loss")
        low, high = claims.interval("median", row["change"], 1 - 0.05 / len(rows))
        assert (row["low"], row["high"]) == (low, high)
    np.testing.assert_allclose([row["median"] for row in rows if row["quantity"] == "training loss"], 2.0)


def test_the_interval_at_each_place_is_that_of_the_claims():
    values = np.random.default_rng(0).normal(size=(9, 3))
    values[:1, 1], values[:5, 2] = np.nan, np.nan
    low, high = compare.interval(values)
    for x in range(2):
        there = values[~np.isnan(values[:, x]), x]
        assert (low[x], high[x]) == claims.interval("median", there, 0.95)
    assert np.isnan(low[2]) and np.isnan(high[2])


def test_losses_below_zero_are_seen(outs):
    found = compare.read([outs["a"], outs["b"]])
    known = {(side.name, found.stop): compare_sides.norms(side.ds, [found.stop])[found.stop] for side in found.sides}
    for less, scale in ((0.0, "log"), (5.0, "linear")):
        sides = [side._replace(ds=side.ds.assign(loss=side.ds["loss"] - less)) for side in found.sides]
        of = compare_overlays.panels(found._replace(sides=sides))
        axes = compare_overlays.through_training(of, known, found.stop).axes[0]
        low, high = axes.get_ylim()
        seen = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
        assert axes.get_yscale() == scale and seen.size and np.all((low < seen) & (seen < high))


def test_directories_without_a_setting_in_common_are_drawn_together_and_say_so(outs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compare, "ROWS", 2)
    files = compare.show([outs["a"], outs["c"]], tmp_path / "out")
    said = capsys.readouterr().out
    assert "No setting is in two directories" in said and "4 updates, which all have made" in said
    assert "the first 2 rows; the page has all" in said
    assert len(files) == 3 and all(path.is_file() for path in files)
    rows = compare.summary(compare.read([outs["a"], outs["c"]]))
    page = (tmp_path / "out" / "report.html").read_text()
    assert len({row["directory"] for row in rows}) == 6 and all(row["directory"] in page for row in rows)
    assert len(rows) == 6 and {row["diverged"] for row in rows} == {0, SEEDS}
    assert {row["training loss"] >= 1e30 for row in rows if row["diverged"]} == {True}


def test_what_cannot_be_compared_is_refused_before_anything_is_written(outs, tmp_path):
    out = tmp_path / "out"
    assert "two or more" in refusal(compare.show, [outs["a"]], out)
    assert "two or more" in refusal(compare.show, [outs["a"], outs["a"] / "." / ".." / "a"], out)
    assert "no run directory" in refusal(compare.show, [outs["a"], outs["b"]], outs["a"])
    inside = outs["a"] / "manifest.json" / "x"
    assert "cannot be made" in refusal(compare.show, [outs["a"], outs["b"]], inside)
    assert "at is 7" in refusal(compare.show, [outs["a"], outs["b"]], out, [7])
    assert "not a run directory" in refusal(compare.show, [outs["a"], tmp_path], out)
    assert not out.exists()
