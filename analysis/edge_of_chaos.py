"""Figures and report of `experiments.edge_of_chaos`: theory drawn through measured growth and exponents, and the plane
of gain × drive with what could be learned on it.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from analysis import claims, report, style
from analysis.chaos_plane import DEPTHS, Plane
from analysis.claims import Verdict
from analysis.lags import axis, having, mean, number, one_setting, picked
from analysis.learned import criterion
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import RUN_DIR, script
from seqdyn.theory import MeanField, critical_gain

WIDE = "wide.json"
"""What the wide networks gave, beside the records of those that were trained."""
POINTS: dict[str, Any] = dict(linestyle="", markersize=3.5, markerfacecolor="none", markeredgewidth=0.8, elinewidth=0.8)
HALO = [withStroke(linewidth=2.4, foreground="white")]


# --- wide networks -----------------------------------------------------------------------------------------------


def mean_and_error(values: Any) -> tuple[float, float]:
    """Over nets, with the standard error (0 of one, which has none to draw)."""
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def spectrum_off(row: dict[str, Any]) -> Float[np.ndarray, " n"]:
    """Measured − predicted, exponent by exponent."""
    found = np.asarray(row["nets"][0])
    return found - predicted_spectrum(row, (np.arange(len(found)) + 0.5) / len(found))


def predicted_spectrum(row: dict[str, Any], shares: np.ndarray) -> Float[np.ndarray, " x"]:
    """λ(x) of theory."""
    field = MeanField("tanh", row["gain"], row["drive"])
    return np.asarray([field.spectrum(float(x)) for x in shares])


# --- figures --------------------------------------------------------------------------------------------------


def against_gain(plane: Plane, wide: dict[str, Any]) -> Figure:
    """Growth and largest exponent: theory as lines, wide networks as circles, those to be trained as crosses."""
    drives = sorted({row["drive"] for row in wide["growth"]})
    fig, axes = style.panels(1, 2, 2.3)
    fig.set_figwidth(style.PAGE)
    gains = np.linspace(min(axis(plane.ds, "gain")) - 0.1, max(axis(plane.ds, "gain")) + 0.1, 50)
    small = {"growth": plane.growth, "exponent": plane.exponent(after=False)}
    for s, color in zip(drives, style.shades(len(drives)), strict=True):
        fields = [MeanField("tanh", gain, s) for gain in gains]
        theory = {"growth": [f.chi1 for f in fields], "exponent": [f.exponent for f in fields]}
        for ax, name in zip(axes[0], ("growth", "exponent"), strict=True):
            ax.plot(gains, theory[name], color=color, linewidth=1, zorder=1, label=f"s = {s:g}")
            points(ax, [(row["gain"], row["nets"]) for row in wide[name] if row["drive"] == s], "o", color)
            at = [(g, small[name][picked(plane.ds, gain=g, input_gain=s)]) for g in axis(plane.ds, "gain")]
            points(ax, [(g, values) for g, values in at if len(values)], "x", color)
    for ax, edge in zip(axes[0], (1.0, 0.0), strict=True):
        ax.axhline(edge, color="0.7", linewidth=0.6, zorder=0)
        ax.set_xlim(gains[0], gains[-1])
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_yticks([0.1, 0.2, 0.5, 1, 2, 4], ["0.1", "0.2", "0.5", "1", "2", "4"])
    axes[0, 0].minorticks_off()
    style.frame(axes, [""], ["growth of E‖∂L/∂hₜ‖² a step back in time", "largest Lyapunov exponent"], "gain g")
    axes[0, 0].set_ylabel("χ$_1$")
    axes[0, 1].set_ylabel("½ log χ$_1$ (nats / step)")
    n, hidden = plane.experiment.settings["width"], plane.experiment.specs[0].hidden[0]
    marks = {f"white input, N = {n}": "o", f"task's input, N = {hidden}": "x"}
    look = {k: v for k, v in POINTS.items() if k != "elinewidth"}
    style.legend(fig, style.drawn(axes) | {t: Line2D([], [], color="0.3", marker=m, **look) for t, m in marks.items()})
    return fig


def points(ax: Axes, at: Sequence[tuple[float, Any]], marker: str, color: Any) -> None:
    """Means over nets with their standard errors."""
    if at:
        middle, error = np.transpose([mean_and_error(values) for _, values in at])
        ax.errorbar([x for x, _ in at], middle, error, marker=marker, color=color, **POINTS)


def spectra(wide: dict[str, Any]) -> Figure:
    """All exponents against their rank, a panel a drive; theory as lines."""
    drives, gains = (sorted({row[name] for row in wide["spectrum"]}) for name in ("drive", "gain"))
    fig, axes = style.panels(1, len(drives), 2.1, sharex=True, sharey=True)
    shares = np.concatenate(
        [np.geomspace(1e-4, 0.05, 8), np.linspace(0.08, 0.97, 30), 1 - np.geomspace(0.02, 5e-4, 10)]
    )
    lowest = 0.0
    for row in wide["spectrum"]:
        ax, color = axes[0, drives.index(row["drive"])], style.shades(len(gains))[gains.index(row["gain"])]
        found = np.asarray(row["nets"][0])
        ranks = (np.arange(len(found)) + 0.5) / len(found)
        shown = np.unique(np.r_[0, np.linspace(0, len(found) - 1, 25).astype(int)])
        ax.plot(shares, predicted_spectrum(row, shares), color=color, linewidth=1, label=f"theory, g = {row['gain']:g}")
        ax.plot(ranks[shown], found[shown], color=color, marker="o", **{k: POINTS[k] for k in list(POINTS)[:4]})
        lowest = min(lowest, float(np.nanmin(found[np.isfinite(found)])))
    for ax in axes[0]:
        ax.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
        ax.set(xlim=(-0.02, 1.02), ylim=(max(lowest, -7.0) - 0.3, 0.8))
    style.frame(axes, [""], [f"s = {s:g}" for s in drives], "share i / N of the exponents", "λ$_i$ (nats / step)")
    style.legend(fig, style.drawn(axes))
    return fig


def edges(values: Sequence[float], log: bool) -> np.ndarray:
    """Borders of the cells around some values."""
    x = np.log(values) if log else np.asarray(values, np.float64)
    middle = (x[1:] + x[:-1]) / 2
    around = np.r_[2 * x[0] - middle[0], middle, 2 * x[-1] - middle[-1]] if len(x) > 1 else np.r_[x - 0.5, x + 0.5]
    return np.exp(around) if log else around


def maps(plane: Plane) -> Figure:
    """Largest exponent before training, what was learned, largest exponent after; theory's lines on all."""
    drives, gains = axis(plane.ds, "input_gain"), axis(plane.ds, "gain")
    x, y = edges(drives, log=True), edges(gains, log=False)
    s, g = np.geomspace(x[0], x[-1], 16), np.linspace(y[0], y[-1], 24)
    logs, reach = np.log([[MeanField("tanh", gain, drive).chi1 for drive in s] for gain in g]), DEPTHS / plane.delay
    fig, axes = style.panels(1, 3, 2.9, sharex=True, sharey=True)
    with np.errstate(divide="ignore"):
        loss = np.log10(plane.over_seeds(plane.loss))
    exponent: dict[str, Any] = dict(cmap="RdBu_r", norm=Normalize(-1, 1))
    shown: list[tuple[str, np.ndarray, dict[str, Any], str]] = [
        ("exponent before training", plane.over_seeds(plane.exponent(after=False)), exponent, "nats / step"),
        ("delayed XOR", loss, dict(cmap="viridis", norm=Normalize(-3, 0)), "log$_{10}$ test loss / chance"),
        ("exponent after training", plane.over_seeds(plane.exponent(after=True)), exponent, "nats / step"),
    ]
    for ax, (_, values, scale, label) in zip(axes[0], shown, strict=True):
        ax.pcolormesh(x, y, values, rasterized=True, **scale)
        ax.set_facecolor(style.MISSING)
        ax.set_xscale("log")
        for level, dashes in ((-reach, style.DASHES[1]), (0.0, "-"), (reach, style.DASHES[1])):
            lines = ax.contour(s, g, logs, [level], colors="black", linewidths=1.2, linestyles=[dashes], zorder=3)
            lines.set_path_effects(HALO)
        bar = fig.colorbar(ScalarMappable(**scale), ax=ax, location="bottom", extend="both", aspect=24, pad=0.03)
        bar.set_label(label)
        bar.outline.set_linewidth(0.6)  # type: ignore[operator]
        ax.set_xticks(drives, [f"{s:g}" for s in drives])
        ax.minorticks_off()
    count = plane.over_seeds(plane.learned, np.sum).astype(int)
    for (i, gain), (j, drive) in product(enumerate(gains), enumerate(drives)):
        if count[i, j]:
            cell = withStroke(linewidth=2, foreground=ScalarMappable(**shown[1][2]).to_rgba(loss[i, j]))
            look = dict(color="white" if loss[i, j] < -1.2 else "black", path_effects=[cell], zorder=4)
            axes[0, 1].annotate(str(count[i, j]), (drive, gain), ha="center", va="center", **look)
    style.frame(axes, [""], [name for name, *_ in shown], "drive s", "gain g")
    lines = {"χ$_1$ = 1 (theory)": "-", f"{DEPTHS}ξ = d = {plane.delay} (theory)": style.DASHES[1]}
    style.legend(fig, {name: Line2D([], [], color="black", linestyle=dashes) for name, dashes in lines.items()})
    return fig


def collapse(plane: Plane) -> Figure:
    """Every run's loss against what theory says becomes of the squared adjoint over the delay."""
    drives = axis(plane.ds, "input_gain")
    fig, axes = style.panels(1, 1, 2.1)
    fig.set_figwidth(6.0)
    ax = axes[0, 0]
    x = plane.delay * plane.log_chi1 / np.log(10)
    reach = DEPTHS / np.log(10)
    ax.axvspan(-reach, reach, color="0.93", linewidth=0, zorder=0)
    ax.axvline(0, color="0.7", linewidth=0.6, zorder=0)
    for s, color in zip(drives, style.shades(len(drives)), strict=True):
        runs = picked(plane.ds, input_gain=s)
        ax.plot(
            x[runs],
            plane.loss[runs],
            color=color,
            marker="o",
            label=f"s = {s:g}",
            **{k: POINTS[k] for k in list(POINTS)[:4]},
        )
    style.log_axis(axes, [plane.loss])
    style.frame(axes, [""], [""], "log$_{10}$ χ$_1^d$ (theory)", "test loss / chance")
    style.legend(fig, style.drawn(axes))
    return fig


# --- the report -----------------------------------------------------------------------------------------------


def crossing(gains: Sequence[float], values: np.ndarray) -> float:
    """The gain at which a quantity first rises through 0, linearly between those measured; NaN if it does not."""
    for i in range(len(gains) - 1):
        if values[i] < 0 <= values[i + 1]:
            return float(np.interp(0.0, values[i : i + 2], gains[i : i + 2]))
    return float("nan")


def stretch(gains: Sequence[float]) -> str:
    """'least–most'."""
    return "–" if not gains else f"{gains[0]:g}" if len(gains) == 1 else f"{gains[0]:g} – {gains[-1]:g}"


def summary(plane: Plane) -> list[dict[str, Any]]:
    """A row a drive; the exponent after training is that of the runs that learned."""
    gains, rows = axis(plane.ds, "gain"), []
    before, count = plane.over_seeds(plane.exponent(after=False)), plane.over_seeds(plane.learned, np.sum)
    for j, s in enumerate(axis(plane.ds, "input_gain")):
        runs = picked(plane.ds, input_gain=s)
        most = np.flatnonzero(count[:, j] > plane.ds.sizes["run"] / count.size / 2)
        rows.append(
            {
                "drive": s,
                "critical": critical_gain("tanh", s),
                "crossing": crossing(gains, before[:, j]),
                "most_learned": [gains[i] for i in most],
                "learned": int(plane.learned[runs].sum()),
                "runs": len(runs),
                "least_loss": float(np.nanmin(plane.loss[runs], initial=np.inf)),
                "exponent": mean(plane.exponent(after=True)[runs][plane.learned[runs]]),
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """`summary` for the reader."""
    return [
        {
            "drive s": f"{r['drive']:g}",
            "critical gain, theory": f"{r['critical']:.2f}",
            "exponent 0 at gain, measured": f"{r['crossing']:.2f}",
            "most seeds learned at gains": stretch(r["most_learned"]),
            "runs learned": f"{r['learned']}/{r['runs']}",
            "least loss / chance": number(r["least_loss"]),
            "exponent after, of those": f"{r['exponent']:+.3f}" if r["learned"] else "–",
        }
        for r in rows
    ]


def agreement(plane: Plane, wide: dict[str, Any]) -> str:
    """Measured against theory, in numbers."""
    fields = {name: [MeanField("tanh", r["gain"], r["drive"]) for r in wide[name]] for name in ("growth", "exponent")}
    growth = [np.mean(r["nets"]) / f.chi1 - 1 for r, f in zip(wide["growth"], fields["growth"], strict=True)]
    exponent = [np.mean(r["nets"]) - f.exponent for r, f in zip(wide["exponent"], fields["exponent"], strict=True)]
    worst = wide["exponent"][int(np.argmax(np.abs(exponent)))]
    spectrum = np.asarray([np.sqrt(np.mean(spectrum_off(row) ** 2)) for row in wide["spectrum"]])
    with np.errstate(divide="ignore"):
        own_growth = np.log(plane.growth) - plane.log_chi1
    own = plane.exponent(after=False) - plane.log_chi1 / 2
    e = plane.experiment
    return (
        f"Theory against {e.settings['nets']} wide networks a point (N = {e.settings['width']}, white input): the "
        f"growth of the squared adjoint differs from χ₁ by {rms(growth):.1%} (root mean square over {len(growth)} "
        f"points; at most {np.abs(growth).max():.1%}), the largest exponent from ½ log χ₁ by {rms(exponent):.3f} (at "
        f"most {np.abs(exponent).max():.3f}, at g = {worst['gain']:g}, s = {worst['drive']:g}; mean "
        f"{np.mean(exponent):+.3f}), whole spectra by {spectrum.min():.3f} to {spectrum.max():.3f} (root mean square "
        f"over all exponents). The networks to be trained (N = {e.specs[0].hidden[0]}, the task's input, "
        f"{e.specs[0].steps} steps from rest): the logarithm of the growth differs by {rms(own_growth):.2f} (mean "
        f"{mean(own_growth):+.2f}), the exponent by {rms(own):.2f} (mean {mean(own):+.2f})."
    )


def rms(values: Any) -> float:
    """Root mean square of the values that exist."""
    return mean(np.square(np.asarray(values, np.float64))) ** 0.5


def outcome(plane: Plane) -> str:
    """Where on the plane was it learned?"""
    x, learned, reach = plane.log_chi1, plane.learned, DEPTHS / plane.delay
    regions = {"within": np.abs(x) <= reach, "on the ordered side of": x < -reach, "on the chaotic side of": x > reach}
    counts = ", ".join(f"{learned[at].sum()} of {at.sum()} {name}" for name, at in regions.items())
    text = (
        f"Delayed XOR over {plane.delay} steps, {plane.ds.sizes['run']} runs: {learned.sum()} learned (test accuracy "
        f"above {plane.criterion.target[0]:g} at the latest probe), by where theory puts them: {counts} the band "
        f"{DEPTHS}ξ ≥ d. "
    )
    if learned.any():
        chi = np.exp(x[learned])
        before, after = (plane.exponent(after=when)[learned] for when in (False, True))
        text += (
            f"Those that learned began at χ₁ of {chi.min():.2f} to {chi.max():.2f}, and training took their largest "
            f"exponent from {before.mean():+.2f} ± {before.std():.2f} (deviation over runs) to {after.mean():+.2f} ± "
            f"{after.std():.2f}. "
        )
    made = plane.ds["recorded"].values.mean()
    return text + (f"{made:.0%} of the updates have been made." if made < 1 else "")


def setting(plane: Plane) -> str:
    """What was run."""
    e, spec = plane.experiment, plane.experiment.specs[0]
    return (
        f"{plane.ds.sizes['run']} tanh networks, hidden {spec.hidden[0]}, W_ij ~ N(0, g²/N), V_i ~ N(0, s²), batch "
        f"{spec.batch}, {spec.optimizer} at learning rate {axis(plane.ds, 'lr')[0]:g}, norm clipped at "
        f"{axis(plane.ds, 'clip')[0]:g}, {e.updates:,} updates on the task '{spec.task}' with T = {spec.steps}. "
        f"Exponents are those of {e.diagnostic} fixed sequences of the task from the state of rest, in nats a step. "
        "Values on the plane are medians over seeds. Runs that had not learned by then are censored, not failed."
    )


def text(plane: Plane, wide: dict[str, Any] | None) -> list[str]:
    """What was run, what was learned, and how far theory is from it."""
    return [setting(plane), outcome(plane), *([agreement(plane, wide)] if wide else [])]


def figures(plane: Plane, wide: dict[str, Any] | None) -> Iterator[report.Drawn]:
    """The plane, and what wide networks say of theory."""
    if wide:
        yield (
            "against_gain",
            against_gain(plane, wide),
            "Growth of the squared adjoint and largest Lyapunov exponent before training against the gain. Lines: mean-"
            "field theory; circles: wide networks under white input; crosses: the networks to be trained, on the "
            "task's input and so soon after rest that weakly driven ones are not yet where they stay; bars: standard "
            "errors over nets.",
        )
    yield (
        "plane",
        maps(plane),
        "The plane of gain and drive: largest exponent before training, test loss after it with the number of seeds "
        f"that learned (of {len(axis(plane.ds, 'seed'))}), and largest exponent after it. Solid: the critical line "
        "χ₁ = 1; dashed: six depth scales ξ = 1/|log χ₁| are the delay d. Nothing is fitted.",
    )
    yield (
        "collapse",
        collapse(plane),
        "Test loss of every run against the factor χ₁ᵈ by which theory has the squared adjoint change over the delay; "
        f"grey: {DEPTHS}ξ ≥ d.",
    )
    if wide:
        yield (
            "spectra",
            spectra(wide),
            "All exponents of wide networks under white input, largest first (every few of them shown), and mean-field "
            "theory: the product of independent W diag(φ').",
        )


def show(out: str | Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a run directory and prints its table and where the figures lie; the page has the verdicts."""
    ds = one_setting(having(load(out), "lyapunov_exponent"), "gain", "input_gain")
    plane = Plane(ds, manifest.experiment(out), criterion(manifest.described(out)))
    kept = Path(out) / WIDE
    wide = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else None
    title = f"The edge of chaos and what can be learned near it; T = {plane.experiment.specs[0].steps}"
    tables = [("By drive; medians over seeds", table(summary(plane))), *claims.tables(verdicts)]
    return report.publish(out, title, text(plane, wide), figures(plane, wide), tables)


def main(out: Path) -> None:
    """As the script that made it."""
    claims.redrawn(out, lambda verdicts: show(out, verdicts))


if __name__ == "__main__":
    script(RUN_DIR, main, __doc__)
