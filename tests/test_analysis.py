"""Laws of the analysis: what is read from the records, and that figures and reports say it, safely and repeatably."""

import dataclasses
import errno
import importlib
import math
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from _refusals import refusal
from matplotlib.figure import Figure
from scipy.stats import ttest_1samp

from analysis import (
    cures,
    explore,
    gradient_flow,
    imdb_gradients,
    judged,
    lags,
    learned,
    overfitting,
    penalties,
    penalty_pairs,
    published,
    report,
    selection,
    style,
)
from experiments.reproduce import _cases
from seqdyn import files
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs import manifest
from seqdyn.runs.records import Store, load
from seqdyn.types import ConfigError

STEPS, UPDATES = 12, 20
RATES = {0.5: 0.5, 1.5: 1.0}
"""By gain: the factor by which the made-up adjoint falls from one step to the one before."""
DIVERGED = 3
"""A made-up run that had learned before it diverged at update 7."""


def write(out, experiment, updates, config=None):
    """A run directory of `updates` made-up updates: exact exponentials, and one run that diverges."""
    out.mkdir(parents=True)
    made = dict.fromkeys(("backend", "device", "matmul_precision", "git"), "none") | {"width": 1}
    verified = {spec.label: 1e-7 for spec in experiment.specs}
    described = {"experiment": experiment.describe(), "config": config or {}, "verified": verified}
    manifest.write(out, {"format": manifest.FORMAT, "versions": {"jax": "0"}} | described | made)
    layers = len(experiment.specs[0].hidden)
    accuracies = ("validation_accuracy", "test_accuracy") if experiment.specs[0].task == "labelled" else ()
    losses = ("test_loss", "validation_loss") if accuracies else ("test_loss",)
    curves = ("adjoint_norm", "adjoint_norm_c", "adjoint_count")
    store = Store(out / "records.zarr", experiment.layout)
    store.create(
        ("loss", "clipped", "finite", "recorded", *curves, *losses, *accuracies),
        {"layer": list(range(layers)), "group": ["u"], "gate": ["h"]},
    )
    for tile in experiment.layout.tiles:
        numbers = experiment.runs[tile.spec].numbers.at(list(tile.runs))
        gains = numbers.gain
        finite = np.ones((len(gains), updates), bool)
        if tile.index == 0:
            finite[DIVERGED, 7:] = False
        alive = np.where(finite, 1.0, np.nan)
        fall = np.asarray([RATES[g] for g in gains])[:, None] ** np.arange(STEPS)[::-1]
        norms = np.broadcast_to(fall[:, None, None], (len(gains), updates, layers, STEPS)) * alive[..., None, None]
        if tile.index == 0 and updates > 6:
            norms[DIVERGED, 6] = np.inf
        metrics = {
            "loss": alive * 0.5,
            "clipped": alive * (numbers.clip < np.inf)[:, None],
            "finite": finite,
            "recorded": np.ones_like(finite),
            "adjoint_norm": norms,
            "adjoint_count": np.broadcast_to(alive[..., None] * 4, (len(gains), updates, STEPS)),
        }
        if experiment.specs[tile.spec].cell == "lstm":
            metrics["adjoint_norm_c"] = norms / 2
        store.write(tile, 0, metrics)
        for probe in range(updates // experiment.probe_every + 1):
            looked = {name: 0.6 if probe == 0 else 0.001 for name in losses}
            # Best on validation at the middle probe, on test at the last.
            for name, values in zip(accuracies, ((0.5, 0.9, 0.8), (0.5, 0.7, 1.0)), strict=False):
                looked[name] = values[probe]
            store.write(tile, probe, {name: np.full(len(gains), value) for name, value in looked.items()})
    return out


@pytest.fixture(scope="module")
def flow():
    specs = (Spec(steps=STEPS, batch=4, hidden=(3,)), Spec(steps=STEPS, batch=4, hidden=(3,), cell="lstm"))
    numbers = grid(seeds=2, gain=list(RATES), clip=[1.0, math.inf], lr=1e-3)
    return Experiment("flow", specs, numbers, UPDATES, chunk=5, probe_every=10, tile=8)


@pytest.fixture(scope="module")
def drawn(flow, tmp_path_factory):
    out = write(tmp_path_factory.mktemp("flow") / "run", flow, UPDATES, {"note": "<script>alert('x')</script>"})
    return out, gradient_flow.show(out)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    spec = Spec(task="labelled", steps=STEPS, batch=4, vocabulary=9, embedding=2, hidden=(3, 3), cell="lstm")
    experiment = Experiment("text", (spec,), grid(seeds=4, gain=1.5), UPDATES, chunk=5, probe_every=10, tile=4)
    return write(tmp_path_factory.mktemp("text") / "run", experiment, UPDATES)


@pytest.mark.parametrize("names", [["d"] * 20, ["rnn tanh, gain 0.5, "] * 6, ["a" * 40] * 5])
def test_a_legend_lies_within_its_figure(names):
    with style.look():
        fig, axes = style.panels(1, 4, 2.0)
        handles = {f"{name}{i}": axes[0, 0].plot([0, 1], [0, i])[0] for i, name in enumerate(names)}
        style.legend(fig, handles)
        fig.draw_without_rendering()
        box = fig.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= fig.bbox.width


def test_the_horizon_of_an_exponential_is_where_it_falls_below_one_percent():
    norms = 3.0 * np.asarray([[0.5], [0.05], [1.0], [2.0], [0.0]]) ** np.arange(STEPS)
    assert lags.horizon(norms).tolist() == [7, 2, STEPS, STEPS, 1]
    assert np.isnan(lags.horizon(norms * np.nan)).all()


def test_an_infinite_threshold_is_named_as_what_it_is():
    assert [lags.named("clip", v) for v in (0.1, math.inf)] == ["clip 0.1", "no clip"]
    assert lags.named("norm_gain", 2.0) == "norm gain 2"


def test_what_arrives_below_is_of_the_first_layer_over_the_last_there_is():
    nothing = [np.nan, np.nan]
    norms = np.array(
        [[[3.0, 4], [9, 9], [0, 2]], [[1, 0], [0, 4], nothing], [[7, 0], nothing, nothing], [nothing, nothing, nothing]]
    )
    np.testing.assert_array_equal(lags.below(norms), [2.5, 0.25, 1, np.nan])


def test_a_censored_middle_makes_the_median_horizon_a_lower_bound():
    falls, flat = 0.5 ** np.arange(STEPS), np.ones(STEPS)
    assert lags.middle_horizon(np.stack([falls, falls, flat])) == (7, False)
    assert lags.middle_horizon(np.stack([falls, flat, flat])) == (STEPS, True)
    assert lags.middle_horizon(np.stack([falls, flat])) == ((7 + STEPS) / 2, True)


def test_quantiles_leave_out_nan_and_order_infinity():
    values = np.asarray([[1.0, np.nan, 5.0], [np.nan, np.nan, np.inf], [2.0, np.nan, 1.0], [4.0, np.nan, 2.0]])
    low, middle = style.quantiles(values, [0.25, 0.5])
    assert [low[0], middle[0]] == np.quantile([1.0, 2.0, 4.0], [0.25, 0.5]).tolist()
    assert np.isnan([low[1], middle[1]]).all()
    assert middle[2] == 3.5


def test_summary_measures_what_was_recorded(flow, drawn):
    rows = gradient_flow.summary(load(drawn[0]), learned.criterion(flow.describe()))
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        rate = RATES[row["gain"]]
        for when in ("start", "end"):
            assert row[f"ratio_{when}"] == pytest.approx(rate ** (STEPS - 1), rel=1e-6)
            assert row[f"horizon_{when}"] == (7 if rate == 0.5 else STEPS)
        assert row["clipped"] == np.isfinite(row["clip"])


def test_the_updates_to_learn_are_those_before_the_first_look_that_met_the_target(drawn):
    out, _ = drawn
    assert published.learned_at(out).tolist() == [10] * 16 and published.successes(out, target=0.7) == (16, 16)
    (row,) = published.cases({"T": {"rnn": out}})
    assert row == {"panel": "T", "case": "rnn", "learned": "16/16", "updates": "10"}
    (row,) = published.cases({"T": {"rnn": out}}, target=1e-4)
    assert (row["learned"], row["updates"]) == ("0/16", f"over {UPDATES}")


def test_two_cases_never_share_a_folder():
    experiments = {name: None for name in ("bias -1", "bias 1", "bias 1.5", "bias 15")}
    assert len({_cases._folder(name) for name in experiments}) == 4
    with pytest.raises(ConfigError, match="each may be there once"):
        _cases.launch_cases({"T": {"a b": None, "a, b": None}}, None)


def test_a_diverged_run_is_counted_as_diverged_and_never_as_learned(flow, drawn):
    status = learned.statuses(load(drawn[0]), learned.criterion(flow.describe()))
    assert status.tolist() == ["diverged" if run == DIVERGED else "learned" for run in range(16)]


def test_each_run_is_judged_by_the_criterion_of_its_own_length():
    """A constant costs 10 ln 8 / T on 'copy'."""
    of = [grid(Spec("copy", steps=steps, readout="every", name=f"{steps}"), seeds=2) for steps in (30, 60)]
    found = learned.criterion(Experiment("copy", of, updates=1).describe())
    np.testing.assert_allclose(found.chance, 10 * np.log(8) / np.array([30, 30, 60, 60]))
    values = np.stack([found.target - 1e-6, found.target + 1e-6], axis=1)
    assert learned.passes(values, found).tolist() == [[True, False]] * 4 and found.metric == "test_loss"


@pytest.mark.slow
def test_grids_with_axes_of_their_own_are_drawn_where_they_have_runs(flow, tmp_path):
    rnn, lstm = flow.specs
    of = [grid(rnn, seeds=4, gain=[0.5]), grid(lstm, seeds=2, gain=[0.5, 1.5], clip=[1.0, math.inf])]
    out = write(tmp_path / "run", Experiment("grids", of, updates=UPDATES, chunk=5, probe_every=10), UPDATES)
    ds, criterion, _ = gradient_flow.read(out)
    rows = gradient_flow.summary(ds, criterion)
    assert {(row["cell"], row["gain"], row["clip"]) for row in rows} == {
        ("rnn tanh", 0.5, math.inf),
        *(("lstm", gain, clip) for gain in (0.5, 1.5) for clip in (1.0, math.inf)),
    }
    assert len(gradient_flow.show(out)) > 4


def test_what_is_not_recorded_yet_has_neither_diverged_nor_failed(flow, tmp_path):
    out = write(tmp_path / "run", flow, 5)
    status = learned.statuses(load(out), learned.criterion(flow.describe()))
    assert set(status) == {"unfinished"}


@pytest.mark.parametrize("chance", [math.nan, 0.0, -3.0])
def test_losses_are_drawn_whatever_a_task_says_of_a_constant_predictor(drawn, chance):
    """A task of one's own need not say it, and a log axis may have no place for it."""
    ds, of, clip = gradient_flow.read(drawn[0])
    of = of._replace(chance=np.full_like(of.chance, chance))
    ends = [axes.get_ylim() for axes in gradient_flow.learning(ds, of).axes]
    assert np.isfinite(ends).all() and min(high for _, high in ends) > 0
    said = gradient_flow.of_cell(gradient_flow.summary(ds, of)[:4], UPDATES, of, clip)
    assert ("no better than a constant" in said) == np.isfinite(chance) and "(censored" in said


def test_losses_below_zero_are_seen(drawn):
    """A density's negative log-likelihood has no sign of its own."""
    ds, of, _ = gradient_flow.read(drawn[0])
    below = ds.assign(loss=ds["loss"] - 5.0)
    for found, scale in ((ds, "log"), (below, "linear")):
        axes = gradient_flow.learning(found, of).axes[0]
        low, high = axes.get_ylim()
        seen = [y for line in axes.lines if line.get_label().startswith("gain") for y in line.get_ydata() if y == y]
        assert axes.get_yscale() == scale and seen and all(low < y < high for y in seen)
    assert [lags.number(value) for value in (-4.67, 4.67, -0.002, 0.0)] == ["-4.7", "4.7", "-2e-03", "0"]


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        (5 * np.exp(-np.arange(2000) / 50) - 1, "linear"),  # most of it lies where it has converged
        (np.append(np.full(900, -1.0), 40.0), "linear"),
        (np.append(np.linspace(2, -3, 900), 1e6), "symlog"),
        (np.append(np.linspace(2, -3, 900), -1e6), "symlog"),
        (np.full(9, -2.0), "linear"),
    ],
)
def test_an_axis_of_losses_below_zero_holds_all_of_them_and_shows_most(losses, scale):
    axes = Figure().subplots(1, 1, squeeze=False)
    style.loss_axis(axes, [losses])
    ax = axes[0, 0]
    low, high = ax.get_ylim()
    assert ax.get_yscale() == scale and low < losses.min() and losses.max() < high
    at = ax.transData.transform(np.stack([np.zeros(len(losses)), losses], axis=1))[:, 1] / ax.bbox.height
    usual = np.sort(at)[1:-1]
    assert scale == "linear" or np.ptp(usual) > 0.1  # one run far off does not make the others flat


def test_what_is_drawn_may_lie_elsewhere_than_in_the_run_directory(drawn, flow, tmp_path, monkeypatch):
    out, into = write(tmp_path / "run", flow, UPDATES), tmp_path / "mine" / "drawn"
    before = sorted(out.rglob("*"))
    gradient_flow.main(gradient_flow.Config(out, into))
    assert sorted(out.rglob("*")) == before
    assert {path.name for path in drawn[1]} == {path.name for path in into.rglob("*.[ph]*")}
    gradient_flow.main(gradient_flow.Config(out, into))  # its own page may be made anew
    for wrong in (out, into / report.NAME):
        assert "no run directory" in refusal(gradient_flow.main, gradient_flow.Config(out, wrong))
    for name in (report.NAME, "figures/learning.png"):
        other = tmp_path / "others" / name
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_text("mine")
        assert "of something else; choose another folder" in refusal(
            gradient_flow.main, gradient_flow.Config(out, tmp_path / "others")
        )
        assert other.read_text() == "mine"
        other.unlink()

    def closed(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    for where, name in ((files, "TemporaryFile"), (Path, "mkdir")):  # in a folder that is there, and for a new one
        with monkeypatch.context() as patch:
            patch.setattr(where, name, closed)
            assert "RUN_DIR --out FOLDER" in refusal(gradient_flow.main, gradient_flow.Config(out))
            assert "take another folder" in refusal(gradient_flow.main, gradient_flow.Config(out, into))
    monkeypatch.setattr(Path, "write_text", closed)
    assert "--out FILE" in refusal(explore.write, [out], out / explore.NAME)


def test_a_half_recorded_run_is_drawn(flow, tmp_path):
    few = dataclasses.replace(flow, specs=flow.specs[1:], numbers=grid(seeds=4, gain=0.5), tile=4)
    *figures, page = gradient_flow.show(write(tmp_path / "run", few, 10))
    assert figures and all(path.stat().st_size > 0 for path in [*figures, page])


def test_drawing_twice_gives_the_same_bytes(drawn, tmp_path):
    out, paths = drawn
    again = shutil.copytree(out, tmp_path / "again", ignore=shutil.ignore_patterns("figures", report.NAME))
    redrawn = gradient_flow.show(again)
    assert [p.relative_to(again) for p in redrawn] == [p.relative_to(out) for p in paths]
    written = sorted(p.relative_to(out) for p in [*(out / "figures").iterdir(), out / report.NAME])
    assert {p.suffix for p in written} == {".png", ".svg", ".html"}
    for path in written:
        assert (out / path).read_bytes() == (again / path).read_bytes(), path


def test_the_report_escapes_what_the_manifest_says_and_needs_nothing_else(drawn):
    html = (drawn[0] / report.NAME).read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert html.count("<img") == html.count('src="data:image/') == len(drawn[1]) - 1
    assert "http" not in re.sub('base64,[^"]*', "", html)
    assert re.findall('href="([^"]*)"', html) == [explore.NAME] and (drawn[0] / explore.NAME).exists()
    assert [p.name for p in drawn[0].glob(".*")] == []


def test_the_probe_is_chosen_on_validation_not_on_test(text):
    ds = load(text)
    assert selection.chosen(ds, selection.ACCURACY).tolist() == [1] * 4
    assert selection.at_chosen(ds, "test_accuracy", selection.ACCURACY) == pytest.approx([0.7] * 4)


def test_reviews_are_drawn_before_anything_is_recorded(text, tmp_path):
    assert len(imdb_gradients.show(write(tmp_path / "run", manifest.experiment(text), 0))) == 4


def test_reviews_are_drawn_layer_by_layer(text):
    *figures, page = imdb_gradients.show(text)
    assert len(figures) == 3 and "Layer 1: horizon" in page.read_text()
    rows = imdb_gradients.summary(load(text))
    assert [r["layer"] for r in rows] == [0, 1]
    assert {r["diverged"] for r in rows} == {1}


def test_what_claims_of_reviews_are_about_is_nan_where_it_was_not_tried(text):
    values = np.arange(12.0).reshape(2, 3, 2)
    ds = xr.Dataset({"group_grad_norm": (("run", "step", "group"), values)}, {"group": ["readout", "embedding"]})
    assert np.array_equal(judged.embedding_gradient(ds), values[..., 1])
    assert np.isnan(judged.embedding_gradient(ds.sel(group=["readout"]))).all()
    found = load(text)
    assert np.isnan(judged.after_an_epoch(found, np.inf)).all()
    assert np.array_equal(judged.after_an_epoch(found, 1), found["validation_accuracy"].values[:, 1])
    horizons = judged.tops(found, manifest.experiment(text).specs, 1.0)
    assert horizons.shape == (4,) and np.isfinite(horizons).any()


# --- cures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k, n", [(0, 3), (3, 3), (2, 5), (50, 100)])
def test_wilsons_interval_holds_the_rate_and_is_wilsons_formula(k, n):
    low, high = style.wilson(k, n)
    p, z = k / n, 1.959964
    middle, half = (p + z**2 / (2 * n)), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    np.testing.assert_allclose([low, high], np.array([middle - half, middle + half]) / (1 + z**2 / n), atol=1e-6)
    assert low <= p <= high


@pytest.mark.parametrize("shift, sign", [(2.0, 1), (0.0, 0), (-2.0, -1)])
def test_a_difference_is_beyond_the_noise_where_the_t_test_says_so(shift, sign):
    values = np.random.default_rng(0).standard_normal(9) + shift
    oracle: Any = ttest_1samp(values, 0.0)
    low, high = oracle.confidence_interval(0.95)
    assert style.sign(values) == sign and (oracle.pvalue < 0.05) == bool(sign)
    np.testing.assert_allclose(style.student(np.append(values, np.nan)), (low, high), rtol=1e-9)
    np.testing.assert_allclose(style.mean_reach(values), (values.mean(), values.mean() - low), rtol=1e-9)
    assert style.interval(values, 2) == f"{low:+.2f} to {high:+.2f}"
    assert (style.sign(values[:1]), *style.mean_reach(values[:1])) == (0, values[0], 0)  # one value says nothing


def test_a_measure_of_every_update_leaves_out_what_was_not_made_or_not_finite():
    loss = xr.DataArray([[1.0, 5.0, 2.0], [np.nan, np.inf, 3.0], [7.0, 8.0, np.nan]], dims=("run", "step"))
    recorded = xr.DataArray([[True, True, True], [True, True, True], [True, False, False]], dims=("run", "step"))
    ds = xr.Dataset({"loss": loss, "recorded": recorded})
    np.testing.assert_array_equal(cures.along("loss", np.nanmax)(ds), [5, 3, 7])
    never = ds.assign(recorded=recorded & False)
    assert np.isnan(cures.along("loss", np.nanmax)(never)).all()


def test_bias_and_variance_add_up_and_are_those_of_what_is_drawn():
    """Probabilities drawn around a mean of their own: each part is found without bias, whatever the number of sets."""
    rng, classes = np.random.default_rng(0), np.array([0, 1, 1, 2])
    mean = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.1, 0.1, 0.8]])
    noise = 0.1 * rng.normal(size=(5, 4000, 4, 3))
    found, error = penalties.decomposed(mean + noise, classes)
    bias = np.square(mean - np.eye(3)[classes]).sum(-1).mean()
    np.testing.assert_allclose(found[0], np.square(mean + noise - np.eye(3)[classes]).sum(-1).mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(found[0], found[1] + found[2], rtol=1e-12)
    np.testing.assert_allclose(found.mean(axis=1), [bias + 0.03, bias, 0.03], atol=2e-3)
    np.testing.assert_allclose(error[1:].mean(axis=1), found[1:].std(axis=1), rtol=0.2)


def test_bias_and_variance_of_two_training_sets_are_those_of_all_in_the_mean():
    """They add up to the Brier score of both, and have the expectation of what is drawn, though it has noise."""
    rng, classes = np.random.default_rng(1), np.array([0, 1, 1, 2])
    mean = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.1, 0.1, 0.8]])
    one, other = mean + 0.1 * rng.normal(size=(2, 4000, 4, 3))
    bias, variance = penalty_pairs.of_pair(one, other, classes)
    truth = np.eye(3)[classes]
    brier = np.square([one - truth, other - truth]).sum(-1).mean((0, -1))
    np.testing.assert_allclose(bias + variance, brier, rtol=1e-12)
    right = np.square(mean - truth).sum(-1).mean()
    np.testing.assert_allclose([bias.mean(), variance.mean()], [right, 0.03], atol=2e-3)
    same, none = penalty_pairs.of_pair(one, one, classes)
    np.testing.assert_array_equal(none, 0)
    assert same.mean() > right + 0.02  # of one set with itself the noise would count as bias


# --- directories that were extended ---------------------------------------------------------------------------


def test_a_cure_is_drawn_with_the_runs_that_extend_it(tmp_path):
    """Whose criterion, lags and seeds count as those of the others do."""
    spec = Spec(steps=STEPS, batch=4, hidden=(3,))

    def cure(seeds):
        numbers = grid(seeds=seeds, gain=list(RATES))
        return Experiment("cure", (spec,), numbers, UPDATES, chunk=5, probe_every=10, tile=4)

    out = write(tmp_path / "run", cure(2), UPDATES)
    write(out / "more-1", cure([2, 3]), UPDATES)
    *figures, page = cures.show(out, "Extended", "gain", {}, [])
    rows = cures.summary(load(out), manifest.described(out), "gain")
    assert [(row["value"], row["runs"], row["learned"]) for row in rows] == [(0.5, 4, 4), (1.5, 4, 4)]
    assert [row["horizon_end"] for row in rows] == [7, STEPS]
    assert figures and page.exists()


def test_an_added_seed_belongs_to_the_method_of_its_numbers(tmp_path):
    """Of `overfitting`, whose directory notes the methods of the runs that it began with."""
    spec, noted = Spec(steps=STEPS, batch=4, hidden=(3,)), ["nothing", "nothing", "more", "more"]

    def one(seeds, rates):
        numbers = grid(seeds=seeds, gain=list(RATES), lr=rates)
        return Experiment("set", (spec,), numbers, UPDATES, chunk=5, probe_every=10, tile=4)

    out = write(tmp_path / "run", one(2, 0.1), UPDATES)
    assert penalties.left_out([out]) == []
    write(out / "more-1", one([2, 3], [0.1, 0.2]), UPDATES)
    methods = overfitting.method_of_each(load(out), noted).tolist()
    assert methods[:4] == noted and sorted(methods[4:]) == [""] * 4 + ["more"] * 2 + ["nothing"] * 2
    assert "1 of the 1 training sets have runs that extend them" in penalties.left_out([out])[0]


@pytest.mark.parametrize(
    "name",
    ["architectures", "edge_of_chaos", "edge_of_stability", "imdb_gradients", "jacobian_spectra", "sequences"],
)
def test_runs_that_lack_what_an_analysis_draws_are_a_sentence(name, flow, tmp_path):
    show = importlib.import_module(f"analysis.{name}").show
    assert "is not recorded in these runs, and this analysis needs it" in refusal(
        show, write(tmp_path / "run", flow, 1)
    )


@pytest.mark.parametrize("name", ["augmentation", "dropout", "imdb_accuracy", "overfitting", "synthetic"])
def test_a_directory_without_the_parts_that_an_analysis_draws_is_a_sentence(name, flow, tmp_path):
    of = importlib.import_module(f"analysis.{name}")
    write(tmp_path / "part", flow, UPDATES)  # of another script
    for out in (tmp_path, tmp_path / "part", tmp_path / "none"):
        assert f"experiments/{name}.py" in refusal(getattr(of, "main", of.show), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part"]


def test_a_command_that_reads_a_directory_says_so(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gradient_flow"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(gradient_flow.__file__, run_name="__main__")
    said = capsys.readouterr().err
    assert end.value.code == 2 and "RUN_DIR" in said and "__" not in said
