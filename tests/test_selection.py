"""Laws of `analysis.selection`: validation chooses, by the first best look; the test split has no say."""

import numpy as np
import pytest
import xarray as xr

from analysis import selection, style

X64 = False


@pytest.fixture
def ds():
    """Four runs, two values of a number × two seeds, five looks; the last run stopped after three."""
    rng = np.random.default_rng(0)
    dims, nan = ("run", "probe"), np.nan
    validation = [[3, 1, 1, 2, 3], [3, 2, 1, 0.5, 0.6], [3, 3, 3, 3, 2.9], [2, 1, 3, nan, nan]]
    train = [[3, 2, 1, 0.5, 0.1], [3, 2, 1, 0.4, 0.3], [3, 3, 3, 3, 2.9], [3, 2, 1, nan, nan]]
    values = {"validation_loss": validation, "train_loss": train, "test_loss": rng.random((4, 5))}
    values |= {f"{s}_accuracy": 1 / (1 + np.asarray(values[f"{s}_loss"])) for s in ("validation", "train", "test")}
    coordinates = {"run": range(4), "l2": ("run", [0.0, 0.0, 1.0, 1.0]), "probe_step": ("probe", np.arange(5) * 10)}
    made = {name: (dims, np.ones((4, 5), bool)) for name in ("recorded", "finite")}
    return xr.Dataset({k: (dims, np.asarray(v, float)) for k, v in values.items()} | made, coordinates)


def test_validation_chooses_its_first_best_look_by_loss_or_by_accuracy(ds):
    assert selection.chosen(ds).tolist() == [1, 3, 4, 1]
    assert selection.chosen(ds, "validation_accuracy").tolist() == [1, 3, 4, 1]
    assert np.array_equal(
        selection.at(ds, "test_loss", selection.chosen(ds)), ds["test_loss"].values[range(4), [1, 3, 4, 1]]
    )


def test_the_test_split_decides_nothing_but_what_is_called_not_selectable(ds):
    other = ds.assign(test_loss=-ds["test_loss"], test_accuracy=1 - ds["test_accuracy"])
    assert np.array_equal(selection.chosen(ds), selection.chosen(other))
    assert selection.settled(ds, "l2") == selection.settled(other, "l2") == 0.0
    assert selection.verdicts(ds, 1.0) == selection.verdicts(other, 1.0)
    assert np.array_equal(selection.not_selectable(ds), ds["test_accuracy"].values.max(axis=1))


def test_a_number_is_settled_by_its_mean_over_seeds(ds):
    assert selection.settled(ds, "l2", runs=[1, 2]) == 0.0
    worse = ds.assign(validation_loss=ds["validation_loss"] + 5 * (ds["l2"] == 0))
    assert selection.settled(worse, "l2") == 1.0


def test_fits_are_named_by_the_rule(ds):
    assert selection.verdicts(ds, chance=3.0) == ["overfitted", "fitted", "underfitted", "overfitted"]
    gone = ds.assign(finite=ds["finite"] & (ds["run"] != 1))
    assert selection.verdicts(gone, chance=3.0)[1] == "diverged"
    assert selection.counted(["fitted", "overfitted", "fitted"]) == "2 fitted, 1 overfitted"


def test_the_curves_mark_the_chosen_epoch(ds):
    panels = {name: selection.Course(ds, np.array(runs), 10) for name, runs in {"none": [0, 1], "l2": [2, 3]}.items()}
    with style.look():
        fig = selection.curves(panels)
    dotted = [line for line in fig.axes[0].lines if line.get_linestyle() == ":"]
    assert dotted[0].get_xdata()[0] == 2.0  # the median of 1 and 3 epochs
