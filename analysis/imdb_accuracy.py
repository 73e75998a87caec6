"""Table, figure and report of `experiments.imdb_accuracy`: accuracy on the three splits along training, the look that
validation chose, and how far back the gradient reached there, beside a control that only counts words.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from analysis import claims, judged, lags, outcomes, report, style
from analysis.claims import Verdict
from analysis.lags import axis, lag_text, picked, stage
from analysis.learned import unfinished
from analysis.selection import ACCURACY, at_chosen, chosen
from analysis.style import spread
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import RUN_DIR, script
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr

REPORTED = {"notes' rnn": 0.801}
"""By the lecture notes, of their last epoch."""
AIMED = {"lstm": 0.86, "gru": 0.86, "best: gru, mean, dropout": 0.88}
"""Not the notes' numbers but this project's own aims, of the look that validation chooses."""
VALUES = (*judged.VALUES, "last", "ahead")
"""What `columns` says of a run."""
LINES = {"notes, last epoch": style.DASHES[0], "our aim": style.DASHES[1]}


def parts(out: Path) -> list[Path]:
    """The run directories in it."""
    found = [out / name for name in ("rnn", "gated", "best") if (out / name / manifest.NAME).exists()]
    if not found:
        raise ConfigError(
            f"{out} has no run directories rnn, gated or best; give that of experiments/imdb_accuracy.py."
        )
    return found


def control(out: Path) -> dict[str, float]:
    """What came out for the control; nothing if it was not measured."""
    file = out / "control.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def columns(*parts: Path) -> "xr.Dataset":
    """`judged.columns`, and, in percent,

    last: test accuracy after the last epoch; ahead: by so much test accuracy, where validation chose, is above that of
        the control, NaN if that was not measured.
    """
    return outcomes.gathered(parts, measured)


def measured(part: Path) -> Mapping[str, np.ndarray]:
    """Of one part: what `columns` says, name -> values [run]."""
    ds, found = load(part), judged.measured(part)
    last = np.where(unfinished(ds), np.nan, 100 * ds["test_accuracy"].values[:, -1])
    ahead = found["test"] - 100 * control(part.parent).get("test", np.nan)
    return {**found, "last": last, "ahead": ahead}


def training_accuracy(ds: "xr.Dataset", runs: np.ndarray) -> np.ndarray:
    """Of each look, the mean over the updates since the look before [run, probe − 1], dropout on."""
    ends = ds["probe_step"].values
    values = ds["accuracy"].values[runs]
    return np.stack([values[:, a:b].mean(axis=1) for a, b in zip(ends, ends[1:], strict=False)], axis=1)


def number(known: dict[str, float], label: str) -> str:
    """What is known of a network, or a dash."""
    return f"{known[label]:.3f}" if label in known else "–"


def summary(out: Path) -> list[dict[str, Any]]:
    """A row per network, a value a seed."""
    found = []
    for part in parts(out):
        ds, experiment = lags.one_setting(load(part)), manifest.experiment(part)
        epoch = experiment.settings["updates per epoch"]
        for spec in experiment.specs:
            runs = picked(ds, label=spec.label)
            test, at = (
                at_chosen(ds, "test_accuracy", ACCURACY)[runs],
                ds["probe_step"].values[chosen(ds, ACCURACY)][runs],
            )
            top = stage(ds, "adjoint_norm", 1.0)[runs][:, -1]
            found.append(
                {
                    "network": spec.label,
                    "words": spec.steps,
                    "last": ds["test_accuracy"].values[runs, -1],
                    "test": test,
                    "validation": at_chosen(ds, "validation_accuracy", ACCURACY)[runs],
                    "best": np.nanmax(ds["test_accuracy"].values[runs], axis=1),
                    "epoch": at / epoch,
                    "horizon": lags.horizon(top),
                }
            )
    return found


def table(rows: list[dict[str, Any]], out: Path) -> list[dict[str, str]]:
    """`summary` for the reader, and a row for the control, if it was measured."""
    found = [
        {
            "network": r["network"],
            "words": str(r["words"]),
            "seeds": str(len(r["test"])),
            "notes, last epoch": number(REPORTED, r["network"]),
            "test, last epoch": spread(r["last"]),
            "aim, chosen on validation": number(AIMED, r["network"]),
            "test, chosen on validation": spread(r["test"]),
            "validation": spread(r["validation"]),
            "best test look (not selectable)": spread(r["best"]),
            "chosen epoch": " ".join(f"{epoch:.2g}" for epoch in r["epoch"]),
            "horizon": lag_text(r["horizon"], r["words"]),
        }
        for r in rows
    ]
    if c := control(out):
        found.append(
            dict.fromkeys(found[0] if found else ["network"], "–")
            | {
                "network": f"tf–idf, {c['features']:,.0f} words and pairs, C = {c['C']:g}",
                "words": "all",
                "test, chosen on validation": f"{c['test']:.3f}",
                "validation": f"{c['validation']:.3f}",
            }
        )
    return found


def curves(out: Path) -> Figure:
    """Accuracy against epoch on the three splits, a panel a network; a ring at each run's chosen look."""
    panels = [
        (load(part), manifest.experiment(part), label) for part in parts(out) for label in axis(load(part), "label")
    ]
    fig, axes = style.panels(1, len(panels), 1.9, sharey=True)
    counted = control(out)
    for ax, (ds, experiment, label) in zip(axes[0], panels, strict=True):
        runs, epoch = picked(ds, label=label), experiment.settings["updates per epoch"]
        x = ds["probe_step"].values / epoch
        style.median_band(ax, (x[1:] + x[:-1]) / 2, training_accuracy(ds, runs), **style.SPLITS["train"])
        for split in ("validation", "test"):
            style.median_band(ax, x, ds[f"{split}_accuracy"].values[runs], **style.SPLITS[split])
        ring: dict[str, Any] = dict(marker="o", markersize=4, markerfacecolor="none", linestyle="none", clip_on=False)
        ax.plot(
            x[chosen(ds, ACCURACY)[runs]],
            at_chosen(ds, "test_accuracy", ACCURACY)[runs],
            color="black",
            label="chosen",
            **ring,
        )
        for known, name in ((REPORTED, "notes, last epoch"), (AIMED, "our aim")):
            if label in known:
                ax.axhline(known[label], color="0.5", linewidth=0.8, linestyle=LINES[name], label=name)
        if counted:
            ax.axhline(counted["test"], color="0.5", linewidth=0.8, linestyle=style.DASHES[2], label="tf–idf")
        ax.set_title(label.partition(":")[0])
        ax.set_xlabel("epoch")
    axes[0, 0].set_ylabel("accuracy")
    axes[0, 0].set_ylim(0.5, 1.0)
    style.legend(fig, style.drawn(axes))
    return fig


def text(found: list[dict[str, str]]) -> list[str]:
    """What the notes report and what was aimed at, each beside what came out of the same kind of look."""
    said = [
        f"{r['network']} {r[of]} ({of.removeprefix('test, ')}; {what} {r[known]})"
        for known, of, what in (
            ("notes, last epoch", "test, last epoch", "the notes'"),
            ("aim, chosen on validation", "test, chosen on validation", "our aim"),
        )
        for r in found
        if r[known] != "–"
    ]
    return [
        f"Test accuracy: {'; '.join(said)}. Means ± standard deviations over seeds. Chosen is the look with the best "
        "validation accuracy; the column of the best test look says what could not have been chosen."
    ]


def figures(out: Path) -> Iterator[report.Drawn]:
    """Of all networks."""
    yield (
        "accuracy",
        curves(out),
        "Accuracy against epoch: training (mean of the batches since the look before, dropout on), validation and "
        "test; medians and quartiles over seeds. Rings: each run's test accuracy at the look with the best validation "
        "accuracy. Grey: the notes' number (solid), our aim (dashed), tf–idf with logistic regression (dotted).",
    )


def show(out: str | Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a directory of runs, and prints the table and where the files lie; the page has the verdicts."""
    out = Path(out)
    found = table(summary(out), out)
    tables = [("Means ± standard deviations over seeds", found), *claims.tables(verdicts)]
    return report.publish(parts(out)[0], "Accuracy on reviews", text(found), figures(out), tables, into=out)


def main(out: Path) -> None:
    """As the script that made it."""
    parts(out)
    claims.redrawn(out, lambda verdicts: show(out, verdicts))


if __name__ == "__main__":
    script(RUN_DIR, main, __doc__)
