"""Laws of what tells runs apart: fields of specs as coordinates, and sweeps over T."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

import seqdyn as sd
from analysis import gradient_flow, lags

X64 = False
SMALL = dict(batch=4, hidden=(4,), holdout=4)
LENGTHS = 4, 9


def specs():
    words = dict(cell="lstm", optimizer="sgd", clip="value"), dict(cell="rnn", penalties=("l1", "l2"))
    return tuple(sd.Spec(steps=t, name=f"T {t}", **(SMALL | w)) for t, w in zip(LENGTHS, words, strict=True))


def experiment(*of):
    return sd.Experiment("lengths", of, sd.grid(seeds=2), updates=2, probes=("jacobians",), tile=2)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return sd.run(experiment(*specs()), tmp_path_factory.mktemp("points") / "out", verify=False)


def test_each_length_has_the_records_it_has_alone_and_ends_at_lag_0(out, tmp_path):
    both = sd.load(out).load()
    for spec in specs():
        alone = sd.load(sd.run(experiment(spec), tmp_path / spec.name, verify=False)).load()
        there = both.sel(run=both["steps"] == spec.steps)
        np.testing.assert_array_equal(there.lag[-spec.steps :], alone.lag)
        for name in ("adjoint_norm", "adjoint_log_norm", "carried_norm", "adjoint_count", "step_norm"):
            np.testing.assert_array_equal(there[name].values[..., -spec.steps :], alone[name].values, err_msg=name)
            assert np.isnan(there[name].values[..., : -spec.steps]).all(), name
        singular = there.window_log_singular.sel(window=alone.window, mode=alone.mode)
        np.testing.assert_array_equal(singular, alone.window_log_singular)
        assert np.isnan(there.window_log_singular.drop_sel(window=alone.window)).all()


@pytest.mark.slow
def test_chosen_lags_have_the_records_they_have_among_all(out, tmp_path):
    all_lags = sd.load(out).load()
    thin = dataclasses.replace(experiment(*specs()), lags=[6, 2, np.int64(3), 400])
    found = sd.load(sd.run(thin, tmp_path / "out", verify=False)).load()
    assert found.lag.values.tolist() == [6, 3, 2, 0] and found.time.values.tolist() == [2, 5, 6, 8]
    for name in found.data_vars:
        there = all_lags[name].isel(time=found.time.values) if "time" in found[name].dims else all_lags[name]
        np.testing.assert_array_equal(found[name].values, there.values, err_msg=name)
    assert "lags" not in experiment(*specs()).describe()  # and so it is the one of before
    beside = sd.load([out, tmp_path / "out"])
    assert beside.lag.values.tolist() == [*range(9)][::-1] and np.isnan(beside.loss.sel(run=0)).sum() == 0
    assert gradient_flow.show(tmp_path / "out")[-1].read_text()
    again = sd.replay(tmp_path / "out", 3, 0, 1)  # held against the lags there are
    np.testing.assert_array_equal(again.adjoint_norm.isel(update=0), found.adjoint_norm.isel(run=3, step=0))
    assert again.sizes["time"] == 9 and again.sizes["time_from_end"] == 4
    sd.probe(tmp_path / "out", "units", steps=[2])
    assert sd.load(tmp_path / "out").saturated.isel(run=0, probe=-1).notnull().any()


def test_lags_on_a_log_scale_are_about_twenty_a_decade():
    of = sd.Experiment("long", sd.Spec(steps=100_000), updates=1, lags="log").layout
    chosen = np.asarray(of.lags)
    assert chosen[:11].tolist() == [*range(11)] and chosen[-1] == 99_999 and len(chosen) < 100
    assert np.diff(np.log10(chosen[11:])).max() < 0.08 and of.times == (99_999 - chosen)[::-1].tolist()


def test_between_lags_norms_lie_on_the_line_of_their_logarithms():
    known = np.array([9, 4, 1, 0])
    ds = xr.Dataset(coords={"lag": ("time", known)})
    power = lags.by_lag(ds, 0.5 ** np.stack([known, known + 3.0]))
    np.testing.assert_allclose(power, 0.5 ** np.stack([np.arange(10), np.arange(10) + 3.0]))
    np.testing.assert_array_equal(power[:, known], 0.5 ** np.stack([known, known + 3.0]))
    dead = lags.by_lag(ds, np.array([np.nan, 0, 1, 2]))
    np.testing.assert_array_equal(dead, [2, 1, 0, 0, 0, *[np.nan] * 5])


@pytest.mark.parametrize("given", ["linear", 7, [1.5], [-1], [True]])
def test_what_are_no_lags_is_a_sentence(given):
    with pytest.raises(sd.ConfigError, match=r"lags(\[0\])? is"):
        sd.Experiment("short", sd.Spec(steps=4), updates=1, lags=given)


def test_a_horizon_that_is_censored_is_that_of_its_own_length(out):
    flat = np.array([[2.0, 1.0, np.nan, np.nan], [1.0, 1.0, 1.0, 1.0], [1.0, 1e-3, np.nan, np.nan], [np.nan] * 4])
    np.testing.assert_array_equal(lags.horizon(flat), [2, 4, 1, np.nan])
    row = lags.reaches({"end": flat[:3]})
    assert row["censored_end"] == 2 and row["ratio_end"] == 0.5
    assert "T = 4, 9" in gradient_flow.show(out)[-1].read_text()


def test_the_fields_of_specs_are_coordinates_of_run(out):
    ds = sd.load(out)
    said = {name: ds[name].values.tolist() for name in ("steps", "hidden", "batch", "optimizer", "task", "penalties")}
    assert said == {
        "steps": [4, 4, 9, 9],
        "hidden": [4] * 4,
        "batch": [4] * 4,
        "optimizer": ["sgd", "sgd", "adam", "adam"],
        "task": ["adding"] * 4,
        "penalties": ["", "", "l1, l2", "l1, l2"],
    }
    assert ds["spec_clip"].values.tolist() == ["value", "value", "norm", "norm"]
    assert ds["clip"].values.tolist() == [np.inf] * 4
    assert "bidirectional" not in ds.coords
    assert ds.attrs["name"] == "lengths" and ds.attrs["updates"] == 2 and ds.attrs["seqdyn_version"]


def test_the_specs_of_a_data_set_share_its_length():
    of = [sd.Spec("labelled", features=2, steps=t, name=str(t), batch=4) for t in LENGTHS]
    with pytest.raises(sd.ConfigError, match="steps is 9 in one spec and 4 in another"):
        experiment(*of)
