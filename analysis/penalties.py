"""Figures, table and report of `experiments.penalties`: error, bias and variance, weights and gradients against λ.

With p_d what the network of training set d says of a test example, K sets, p̄ their mean and the variance
S² = Σ_d ‖p_d − p̄‖² / (K − 1), the mean Brier score is bias² + S² with bias² = ‖p̄ − y‖² − S²/K, both without bias of
their own (Geman, Bienenstock & Doursat 1992; noise in the labels counts as bias²). Their 95% intervals are jackknifed
over training sets.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import claims, lags, report, style
from analysis.claims import Verdict
from analysis.lags import Curve, stage
from analysis.selection import best
from analysis.style import mean_reach
from seqdyn.learn.config import Experiment, Spec
from seqdyn.runs import manifest
from seqdyn.runs.records import alone

LEARNED = "learned.npz"
"""Beside the records of a draw: what its networks say of the test split, and their weights."""
ADAMS = ("l2", "decoupled decay")
"""One method under plain descent, two under Adam."""
SPLITS = {"train": "0.45", "validation": "C0", "test": "C1"}


def swept(spec: Spec) -> str:
    """The hyperparameter whose λ a method's axis shows."""
    return "weight_decay" if spec.optimizer == "adamw" else spec.penalties[0]


class Found(NamedTuple):
    """What all draws found, by draw d, method m and λ l."""

    experiment: Experiment
    labels: list[str]
    weights: Float[np.ndarray, "m l"]
    """λ, 0 first."""
    metrics: dict[str, Float[np.ndarray, "d m l"]]
    """At the last look."""
    norms: Float[np.ndarray, "d m l lag"]
    """‖∂L/∂h_t‖ of the trained network over that at lag 0."""
    brier: Float[np.ndarray, "part m l"]
    """Brier score, bias² and variance."""
    error: Float[np.ndarray, "part m l"]
    """Standard errors of the last three."""
    learned: Float[np.ndarray, "d m l w"]
    """Weights."""


def decomposed(
    said: Float[np.ndarray, "d *s n k"], classes: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "3 ..."], Float[np.ndarray, "3 ..."]]:
    """((Brier, bias², variance), their standard errors) of predicted probabilities, mean over n examples."""

    def parts(said: np.ndarray) -> np.ndarray:
        truth, count = np.eye(said.shape[-1])[classes], len(said)
        mean = said.mean(axis=0)
        variance = np.square(said - mean).sum(axis=(0, -1)).mean(axis=-1) / (count - 1)
        bias = np.square(mean - truth).sum(axis=-1).mean(axis=-1) - variance / count
        return np.stack([bias + variance, bias, variance])

    count = len(said)
    if count < 3:  # a variance of one set is none
        whole = parts(said)
        return whole, np.full_like(whole, np.nan)
    without = np.stack([parts(np.delete(said, d, axis=0)) for d in range(count)])
    spread = np.square(without - without.mean(axis=0)).sum(axis=0)
    return parts(said), np.sqrt((count - 1) / count * spread)


def found(parts: Sequence[Path]) -> Found:
    """Reads all draws."""
    experiment = manifest.experiment(parts[0])
    specs, count = experiment.specs, len(experiment.numbers)
    metrics: dict[str, list[np.ndarray]] = {}
    norms, said, learned, classes = [], [], [], np.zeros(0, int)
    for part in parts:
        ds = alone(part)  # of the runs that extend it nothing was noted in LEARNED
        for split in SPLITS:
            for name in (f"{split}_loss", f"{split}_accuracy"):
                metrics.setdefault(name, []).append(ds[name].values[:, -1])
        metrics.setdefault("radius", []).append(ds["spectral_radius"].values[:, -1, 0, 0])
        norms.append(lags.relative(stage(ds, "adjoint_norm", 1.0)[:, 0]))
        with np.load(part / LEARNED) as noted:
            said.append(noted["probabilities"].astype(np.float64))
            learned.append(noted["weights"])
            classes = noted["classes"]

    def by_method(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([v.reshape(len(specs), count, *v.shape[1:]) for v in values])

    brier, error = decomposed(by_method(said), classes)
    weights = np.stack([np.asarray(getattr(experiment.numbers, swept(s)), float) for s in specs])
    return Found(
        experiment,
        [s.label for s in specs],
        weights,
        {name: by_method(v) for name, v in metrics.items()},
        by_method(norms),
        brier,
        error,
        by_method(learned),
    )


def chosen(f: Found) -> Int[np.ndarray, " m"]:
    """Which λ of each method has the best mean validation loss over the draws."""
    return best(f.metrics["validation_loss"].mean(axis=0), "validation_loss")


def nonzero(f: Found) -> Float[np.ndarray, "d m l"]:
    """Share of the weights that are not 0."""
    return (f.learned != 0).mean(axis=-1)


def scale(f: Found) -> Float[np.ndarray, "d m l"]:
    """Root mean square of the weights."""
    return np.sqrt(np.square(f.learned.astype(np.float64)).mean(axis=-1))


# --- figures --------------------------------------------------------------------------------------------------


def places(weights: Float[np.ndarray, " l"]) -> np.ndarray:
    """Where λ stand on a log axis, 0 a decade before the first."""
    return np.concatenate([weights[1:2] / 10, weights[1:]])


def ready(ax: Axes, f: Found, m: int) -> None:
    """A log axis of λ that begins with 0, and a dotted line where validation chooses."""
    x = places(f.weights[m])
    ax.set_xscale("log")
    decades = [w for w in 10.0 ** np.arange(-8, 3) if f.weights[m, 1] * 0.99 <= w <= f.weights[m, -1] * 1.01]
    ax.set_xticks([x[0], *decades[1 - len(decades) % 2 :: 2]])
    ax.set_xticklabels(["0", *(f"$10^{{{round(np.log10(w))}}}$" for w in decades[1 - len(decades) % 2 :: 2])])
    ax.minorticks_off()
    ax.axvline(float(x[chosen(f)[m]]), color="k", linestyle=":", label="chosen by validation")


def grid(f: Found, height: float = 1.35) -> tuple[Figure, np.ndarray, list[Axes]]:
    """A panel a method, four a row."""
    fig, axes, panels = style.wrapped(len(f.labels), 4, height, sharey=True)
    fig.set_figwidth(style.PAGE)
    return fig, axes, panels


def finished(fig: Figure, axes: np.ndarray, panels: Sequence[Axes], f: Found, y: str) -> Figure:
    """Titles, labels and legend."""
    for m, (ax, label) in enumerate(zip(panels, f.labels, strict=True)):
        ready(ax, f, m)
        ax.set_title(label)
        ax.set_xlabel("λ")
    for row in axes:
        row[0].set_ylabel(y)
    style.legend(fig, style.drawn(axes[:1, :1]))
    return fig


def errors(f: Found) -> Figure:
    """Error on the three splits against λ: medians and quartiles over the draws."""
    fig, axes, panels = grid(f)
    for m, ax in enumerate(panels):
        for split, color in SPLITS.items():
            values = 100 * (1 - f.metrics[f"{split}_accuracy"][:, m])
            line: dict[str, Any] = dict(
                color=color, marker="o", markersize=2.5, label=split.replace("train", "training")
            )
            style.median_band(ax, places(f.weights[m]), values, **line)
    axes[0, 0].set_ylim(0, 60)
    return finished(fig, axes, panels, f, "error (%)")


def bias_and_variance(f: Found) -> Figure:
    """The Brier score on the test split and its two parts against λ, with 95% intervals."""
    fig, axes, panels = grid(f)
    for m, ax in enumerate(panels):
        for k, (name, color) in enumerate(
            (("Brier score", "0.45"), ("bias²", style.BLUE), ("variance", style.VERMILION))
        ):
            x, y, reach = places(f.weights[m]), f.brier[k, m], 1.96 * f.error[k, m]
            ax.plot(x, y, color=color, marker="o", markersize=2.5, label=name)
            ax.fill_between(x, y - reach, y + reach, color=color, alpha=0.2, linewidth=0)
    axes[0, 0].set_ylim(0, 0.6)
    return finished(fig, axes, panels, f, "on the test split")


def weights(f: Found) -> Figure:
    """What is left of the weights against λ, how large they are where validation chooses, and what size costs."""
    fig, axes = style.panels(2, 2, 1.9)
    fig.set_figwidth(style.PAGE)
    (count, radius), (sizes, costs) = axes
    share, at, size = 100 * nonzero(f), chosen(f), scale(f)
    for m, label in enumerate(f.labels):
        line: dict[str, Any] = dict(color=style.OKABE[m % len(style.OKABE)], label=label)
        x = places(f.weights[m])
        style.median_band(count, x, share[:, m], **line)
        style.median_band(radius, x, f.metrics["radius"][:, m], **line)
        ordered = np.sort(np.abs(f.learned[:, m, at[m]].ravel()))
        ordered = ordered[:: max(1, len(ordered) // 2000)]
        sizes.plot(np.maximum(ordered, 1e-12), np.linspace(0, 100, len(ordered)), **line)
        if label in ADAMS:
            costs.plot(size[:, m].mean(axis=0), f.brier[0, m], marker="o", markersize=2.5, **line)
    for ax in (count, radius):
        ax.set_xscale("log")
        ax.set_xlabel("λ (leftmost: 0)")
    count.set_ylabel("weights that are not 0 (%)")
    radius.set_ylabel("spectral radius of U")
    sizes.set(xscale="log", xlim=(1e-4, 3), xlabel="x, at the λ chosen", ylabel="weights with |w| ≤ x (%)")
    costs.set(xlabel="root mean square weight", ylabel="test Brier score", ylim=(0.1, 0.5))
    style.legend(fig, style.drawn(axes[:1, :1]))
    return fig


def gradients(f: Found) -> Figure:
    """‖∂L/∂h_t‖ over that at lag 0 against the lag, a curve for every other λ."""
    points = list(range(0, f.weights.shape[1], 2))
    shades = style.shades(len(points))

    def name(point: int) -> str:
        if not point:
            return "λ = 0"
        share = np.log10(f.weights[0, point] / f.weights[0, -1])
        return f"λ = $10^{{{round(2 * share) / 2:g}}}$ λ$_{{max}}$"

    panels = [
        [Curve(f.norms[:, m, p], shade, name(p)) for p, shade in zip(points, shades, strict=True)]
        for m in range(len(f.labels))
    ]
    half = -(-len(panels) // 2) if len(panels) > 4 else len(panels)
    rows = [panels[:half], panels[half:]] if half < len(panels) else [panels]
    if len(rows) > 1 and len(rows[1]) < half:
        rows[1] = [*rows[1], rows[0][0]]
    fig = lags.lag_figure(rows, [""] * len(rows), [""] * half, y="‖∂L/∂h$_t$‖ / ‖∂L/∂h$_T$‖")
    for ax, label in zip(fig.axes, f.labels, strict=False):
        ax.set_title(label)
    return fig


# --- in words -------------------------------------------------------------------------------------------------


def summary(f: Found) -> list[dict[str, Any]]:
    """A row a method, at the λ that validation chooses; differences are from the first method at λ = 0."""
    at, accuracy, share = chosen(f), f.metrics["test_accuracy"], nonzero(f)
    listed = []
    for m, label in enumerate(f.labels):
        p = at[m]
        gain, reach = mean_reach(100 * (accuracy[:, m, p] - accuracy[:, 0, 0]))
        listed.append(
            {"label": label, "weight": f.weights[m, p], "accuracy": 100 * accuracy[:, m, p].mean(), "gain": gain}
            | {"reach": reach, "train": 100 * f.metrics["train_accuracy"][:, m, p].mean()}
            | {"bias": f.brier[1, m, p], "variance": f.brier[2, m, p], "nonzero": 100 * share[:, m, p].mean()}
            | {
                "radius": f.metrics["radius"][:, m, p].mean(),
                "validation": f.metrics["validation_loss"][:, m, p].mean(),
            }
        )
    return listed


def table(listed: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """For the reader."""
    return [
        {"method": r["label"], "λ chosen": f"{r['weight']:.2g}", "test accuracy (%)": f"{r['accuracy']:.1f}"}
        | {"gain over λ = 0": f"{r['gain']:+.1f} ± {r['reach']:.1f}", "training (%)": f"{r['train']:.1f}"}
        | {"bias²": f"{r['bias']:.3f}", "variance": f"{r['variance']:.3f}", "not 0 (%)": f"{r['nonzero']:.0f}"}
        | {"spectral radius": f"{r['radius']:.2f}"}
        for r in listed
    ]


def outcome(f: Found, listed: Sequence[dict[str, Any]]) -> str:
    """What was found, in sentences computed from the records."""
    plain = f.brier[:, 0, 0]
    helped = [r for r in listed if r["gain"] - r["reach"] > 0]
    first = min(listed, key=lambda r: r["validation"])
    text = (
        f"Without a penalty the test Brier score is {plain[0]:.3f}: bias² {plain[1]:.3f} and variance {plain[2]:.3f}. "
        f"At the λ that validation chooses, the test accuracy is beyond the noise better than at λ = 0 with: "
        f"{'; '.join(r['label'] for r in helped) or 'none'}. The method with the best validation loss, "
        f"{first['label']} at λ = {first['weight']:.2g}, gains {first['gain']:+.1f} ± {first['reach']:.1f} points: "
        f"variance from {plain[2]:.3f} to {first['variance']:.3f}, bias² from {plain[1]:.3f} to {first['bias']:.3f}."
    )
    if "l0" in f.labels:
        m = f.labels.index("l0")
        gain, reach = mean_reach(100 * (f.metrics["test_accuracy"][:, m, 0] - f.metrics["test_accuracy"][:, 0, 0]))
        text += (
            f" Gates alone, drawn at λ = 0 as dropout would be, gain {gain:+.1f} ± {reach:.1f}; what λ adds is that "
            f"{listed[m]['nonzero']:.0f}% of the weights are enough."
        )
    held: list[str] = []
    for m, label in enumerate(f.labels):
        brier, bias, variance = f.brier[:, m]
        low = int(np.argmin(brier))
        if variance[low] < variance[0]:
            held.append(f"{label}: variance ×{variance[low] / variance[0]:.2f}, bias² ×{bias[low] / bias[0]:.2f}")
    text += f" From λ = 0 to the λ of the least test Brier score: {'; '.join(held) or 'nowhere less variance'}."
    return text + same(f)


def same(f: Found) -> str:
    """How l2 under Adam and decoupled decay differ, in a sentence; '' without either."""
    if not {*ADAMS} <= {*f.labels}:
        return ""
    one, other = (f.labels.index(label) for label in ADAMS)
    sizes, brier = scale(f).mean(axis=0), f.brier[0]
    low = [int(np.argmin(brier[m])) for m in (one, other)]
    order = np.argsort(sizes[other])
    within = (sizes[one] >= sizes[other].min()) & (sizes[one] <= sizes[other].max())
    between = np.interp(sizes[one], sizes[other][order], brier[other][order])
    return (
        f" The least test Brier score is {brier[one, low[0]]:.3f} with {ADAMS[0]}, at a root mean square weight of "
        f"{sizes[one, low[0]]:.2f}, and {brier[other, low[1]]:.3f} with {ADAMS[1]}, at {sizes[other, low[1]]:.2f}; at "
        f"equal size they differ by up to {np.abs(between - brier[one])[within].max():.3f}, which no scale of λ undoes."
    )


def setting(f: Found, draws: int) -> str:
    """What was run."""
    spec, e = f.experiment.specs[0], f.experiment
    return (
        f"{draws} training sets, each with a seed of its own; {len(f.labels)} methods × {f.weights.shape[1]} values of "
        f"λ on each: an rnn of {spec.hidden[0]} units, batch {spec.batch}, {e.updates:,} updates of Adam at "
        f"{np.ravel(e.numbers.lr)[0]:g}. Everything is read at the end of training. λ is chosen by the mean validation "
        "loss over the training sets; the test split takes no part in it. Gains are paired over training sets, with "
        "Student's 95% interval. The shares of weights count input, recurrent and readout matrices, gates acting."
    )


def left_out(parts: Sequence[Path]) -> list[str]:
    """The paragraph on runs that a draw was extended by: each training set has one network a λ, and all the same λ."""
    more = sum(len(manifest.directories(part)) > 1 for part in parts)
    said = (
        f"{more} of the {len(parts)} training sets have runs that extend them; these are not drawn here, as each set "
    )
    return [said + "has one network for each λ, and all sets have the same λ."] if more else []


def text(f: Found, listed: Sequence[dict[str, Any]], draws: int) -> list[str]:
    """What was found, and what was run."""
    return [outcome(f, listed), setting(f, draws)]


def figures(f: Found) -> Iterator[report.Drawn]:
    """All against λ."""
    largest = ", ".join(f"{label} {values[-1]:g}" for label, values in zip(f.labels, f.weights, strict=True))
    yield (
        "errors",
        errors(f),
        "Error against λ, on the training, validation and test split: medians and quartiles over training sets. "
        "Dotted: the λ with the best mean validation loss.",
    )
    yield (
        "bias_and_variance",
        bias_and_variance(f),
        "The Brier score on the test split is bias² + variance, over training sets and seeds; bands are jackknifed 95% "
        "intervals.",
    )
    yield (
        "weights",
        weights(f),
        "Weights that are not 0, and the spectral radius of U, against λ: medians and quartiles over training sets. "
        "Below: how large weights are at the λ chosen, all training sets together (what is 0 lies left of the panel); "
        "and the test Brier score against the size of the weights, a point for each λ: were l2 and decoupled decay the "
        "same but for the scale of λ, these would be one curve.",
    )
    yield (
        "gradients",
        gradients(f),
        "‖∂L/∂h_t‖ of the trained networks, on training batches, over that at lag 0; medians and quartiles over "
        f"training sets. λ_max: the largest λ of a method's grid, {largest}. {lags.RINGS}",
    )


def show(out: Path, parts: Sequence[Path], verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws the experiments of a directory and prints their table and where they lie; the page has the verdicts."""
    f = found(parts)
    listed = summary(f)
    said = [*text(f, listed, len(parts)), *left_out(parts)]
    tables = [("At the λ chosen by validation; means over training sets", table(listed)), *claims.tables(verdicts)]
    return report.publish(parts[0], "Penalties", said, figures(f), tables, into=out)
