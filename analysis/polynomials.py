"""Figures, table and report of `experiments.polynomials`, from the arrays that it keeps."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from analysis import claims, report, style
from analysis.claims import Verdict
from analysis.style import BLACK, BLUE, GREEN, VERMILION

if TYPE_CHECKING:
    import xarray as xr

Arrays = Mapping[str, np.ndarray]
GREY = "0.55"
ARRAYS = "polynomials.npz"
HIGH = 17
"""The degree at which penalties and early stopping are shown."""
WEAK = 0.1
"""λ of ridge where least squares have their peak."""
SHOWN = (0.0, 1e-4, 1e-2, 1.0)
"""λ drawn through the interpolation threshold."""


def read(out: Path) -> dict[str, np.ndarray]:
    """What the experiment measured."""
    with np.load(out / ARRAYS) as found:
        return dict(found)


def columns(found: Arrays) -> "xr.Dataset":
    """What claims are about, a row a draw (`seed`) of so many `points` and a degree: the expected test error of least
    squares (`test`), of ridge at `WEAK` (`weak`) and at the λ that is best for the draw (`best`); bias² and variance of
    a draw and the next, NaN at every second; of gradient descent, whose draws are others, the least test error
    (`powers`, `legendre`) and the last (`powers_last`, `legendre_last`), NaN at degrees that do not descend."""
    import xarray as xr

    degrees, shape = found["degrees"], found["test"].shape
    pairs = np.full((*shape, 2), np.nan)
    pairs[:, : shape[1] // 2 * 2 : 2] = found["pairs"]
    of = {"test": found["test"], "weak": found["ridge_weak"], "best": found["ridge_best"]}
    of |= {"bias": pairs[..., 0], "variance": pairs[..., 1]}
    descends = np.isin(degrees, found["descended"])
    for basis in ("powers", "legendre"):
        for name, kept in ((basis, f"{basis}_best"), (f"{basis}_last", f"{basis}_last")):
            of[name] = np.full(shape, np.nan)
            of[name][descends] = found[kept][np.isin(found["descended"], degrees)]
    of |= {"points": np.full(shape, float(found["points"]))}
    of |= {"degree": np.broadcast_to(degrees[:, None], shape), "seed": np.broadcast_to(np.arange(shape[1]), shape)}
    return xr.Dataset({name: ("run", values.ravel()) for name, values in of.items()})


def verdict(train: float, test: float, noise: float) -> str:
    """The rule: underfits if even the training error is above twice the noise²; else overfits if the expected test
    error is above twice both; else fits."""
    if train > 2 * noise**2:
        return "underfits"
    return "overfits" if test > 2 * max(noise**2, train) else "fits"


def band(ax: Axes, x: np.ndarray, quartiles: np.ndarray, **line: Any) -> None:
    """A median and the quartiles around it, from [x, 3]."""
    drawn = ax.plot(x, quartiles[:, 1], **line)[0]
    ax.fill_between(x, quartiles[:, 0], quartiles[:, 2], color=drawn.get_color(), alpha=0.2, linewidth=0)


def over_draws(values: np.ndarray) -> np.ndarray:
    """[x, 3] of [x, draw]."""
    return np.quantile(values, [0.25, 0.5, 0.75], axis=1).T


def decades(ax: Axes, low: float, high: float) -> None:
    """A log y axis with few labels."""
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_minor_locator(NullLocator())


# --- one sample -----------------------------------------------------------------------------------------------


def fitted(found: Arrays, name: str, columns: int, names: list[str]) -> Figure:
    """A panel a degree: sample, truth, fit."""
    fits, x, y = found[f"{name}_fits"], found[f"{name}_x"], found[f"{name}_y"]
    height = 1.25 if len(fits) > columns else 1.7
    fig, axes, used = style.wrapped(len(fits), columns, height, sharex=True, sharey=True)
    room = 0.35 * (y.max() - y.min())
    for ax, f, title, train, test in zip(used, fits, names, found[f"{name}_train"], found[f"{name}_test"], strict=True):
        ax.plot(found["grid"], found[f"{name}_truth"], color=GREY, label="truth", linestyle=style.DASHES[1])
        ax.plot(found["grid"], f, color=BLUE, label="polynomial")
        ax.plot(x, y, "o", color=BLACK, markersize=2.5, label="training points")
        ax.set_ylim(y.min() - room, y.max() + room)
        ax.set_title(f"{title}\ntraining {number(train)}, test {number(test)}")
    for ax in axes[-1]:
        ax.set_xlabel("x")
    for ax in axes[:, 0]:
        ax.set_ylabel("y")
    style.legend(fig, style.drawn(axes[:1, :1]))
    return fig


def number(value: float) -> str:
    """Short."""
    if 0.001 <= value < 1000:
        return f"{value:.2g}" if value < 100 else f"{value:.0f}"
    return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")


def sines(found: Arrays) -> Figure:
    """y = sin x."""
    degrees = found["sine_degrees"]
    return fitted(found, "sine", 3, [f"degree {d}" + (", no bias" if d == 1 else "") for d in degrees])


def parabolas(found: Arrays) -> Figure:
    """A quadratic truth and three models, named by the rule."""
    sigma = float(found["sigma"])
    told = [
        f"degree {d}: {verdict(train, test, sigma)}"
        for d, train, test in zip(
            found["parabola_degrees"], found["parabola_train"], found["parabola_test"], strict=True
        )
    ]
    return fitted(found, "parabola", 3, told)


# --- many samples ---------------------------------------------------------------------------------------------


def drawn_degrees(found: Arrays) -> np.ndarray:
    """Rows of the sweep that the fits are drawn at."""
    return np.flatnonzero(np.isin(found["degrees"], found["sine_degrees"]))


def high(found: Arrays) -> int:
    """The row of the sweep that `HIGH` is, or its last."""
    return min(HIGH, len(found["degrees"])) - 1


def resolved(pair: np.ndarray, draws: int) -> np.ndarray:
    """Bias² of [x, (bias², variance)] where it is above twice the variance of a mean over the draws, else NaN."""
    return np.where(pair[:, 0] > 2 * pair[:, 1] / draws, pair[:, 0], np.nan)


def trade(found: Arrays) -> Figure:
    """Training and test error, and what the test error consists of, against degree and λ; and against how many
    coefficients are effectively free."""
    fig, axes = style.panels(2, 2, 1.9)
    fig.set_figwidth(style.PAGE)
    noise, at, row = float(found["sigma"]) ** 2, drawn_degrees(found), high(found)
    degrees, penalties, draws = found["degrees"], found["penalties"], found["test"].shape[1]
    (errors, parts), (ridge, effective) = axes
    band(errors, degrees[at], over_draws(found["train"][at]), color=BLACK, marker="o", markersize=3, label="training")
    band(errors, degrees[at], over_draws(found["test"][at]), color=VERMILION, marker="o", markersize=3, label="test")
    errors.axhline(noise, color=GREY, linewidth=0.8, label="noise²")
    errors.legend(loc="upper left")
    decades(errors, noise / 30, 1e4)
    for ax, x, pair in ((parts, degrees[at], found["parts"][at]), (ridge, penalties, found["ridge_parts"][row])):
        ax.plot(x, resolved(pair, draws), color=BLUE, label="bias²", marker=".")
        ax.plot(x, pair[:, 1], color=GREEN, label="variance", marker=".", linestyle=style.DASHES[1])
        ax.axhline(noise, color=GREY, linewidth=0.8, label="noise²")
        ax.plot(x, pair.sum(1) + noise, color=VERMILION, label="their sum")
        decades(ax, 3e-5, 1e5)
    counted = found["counted"][at].mean(1)
    parts.plot(degrees[at], counted, "kx", markersize=4, label="test error, counted")
    parts.legend(loc="upper left", ncols=2, columnspacing=1.0)
    for ax in (errors, parts):
        ax.set_xlabel("degree")
        ax.set_xticks(degrees[at])
    ridge.set_xscale("log")
    ridge.set_xlabel(f"ridge λ, degree {degrees[row]}")
    band(effective, degrees + (degrees > 1), over_draws(found["test"]), color=BLACK, label="lower degree")
    k = int(np.flatnonzero(found["descended"] == min(HIGH, found["descended"].max()))[0])
    line: dict[str, Any] = dict(color=VERMILION, linestyle=style.DASHES[1], label=f"larger λ, degree {degrees[row]}")
    band(effective, found["ridge_effective"][row], found["ridge_test"][row], **line)
    for name, color, label in (("legendre", BLUE, "Legendre"), ("powers", GREEN, "powers")):
        line = dict(color=color, linestyle=style.DASHES[2], label=f"fewer updates, degree {HIGH}, {label}")
        band(effective, found[f"{name}_effective"][k], found[f"{name}_test"][k], **line)
    effective.set_xlim(0, float(found["points"]) - 1.5)
    effective.xaxis.set_major_locator(MaxNLocator(integer=True))
    effective.set_xlabel("effective number of coefficients")
    decades(effective, noise / 1.5, 1e4)
    effective.legend(loc="upper left")
    for ax in axes[:, 0]:
        ax.set_ylabel("mean squared error")
    return fig


def beyond(found: Arrays) -> Figure:
    """Through the interpolation threshold: test error by λ, what it consists of, and the norm of the coefficients."""
    fig, axes = style.panels(1, 3, 2.3, sharex=True)
    errors, parts, norm = axes[0]
    degrees, noise, threshold = found["degrees"], float(found["sigma"]) ** 2, float(found["points"]) - 1
    for penalty, color in zip(SHOWN, style.shades(len(SHOWN)), strict=True):
        column = int(np.argmin(np.abs(found["penalties"] - penalty)))
        of = found["ridge_test"][:, column] if penalty else over_draws(found["test"])
        band(errors, degrees, of, color=color, label=f"λ = {penalty:g}")
    train = over_draws(found["train"])
    errors.plot(degrees, train[:, 1], color=GREY, linestyle=style.DASHES[2], label="training, λ = 0")
    pair = found["parts"]
    parts.plot(degrees, resolved(pair, found["test"].shape[1]), color=BLUE, label="bias²")
    parts.plot(degrees, pair[:, 1], color=GREEN, linestyle=style.DASHES[1], label="variance")
    parts.plot(degrees, pair.sum(1) + noise, color=VERMILION, linestyle=style.DASHES[2], label="sum")
    band(norm, degrees, over_draws(found["norm"]), color=BLACK)
    top = 10 ** np.ceil(np.log10(max(found["test"].mean(1).max(), 10)))
    for ax, low, high, name in (
        (errors, noise / 30, top, "test error, medians"),
        (parts, 1e-5, top, "mean over draws, λ = 0"),
        (norm, 0.1, 3 * over_draws(found["norm"]).max(), "‖w‖, λ = 0"),
    ):
        decades(ax, low, high)
        ax.axvline(threshold, color=GREY, linewidth=0.8, linestyle=style.DASHES[2])
        ax.set_xlabel("degree")
        ax.set_title(name)
    errors.axhline(noise, color=GREY, linewidth=0.8)
    parts.axhline(noise, color=GREY, linewidth=0.8)
    for ax in (errors, parts):
        ax.legend(loc="upper right")
    return fig


def descents(found: Arrays) -> Figure:
    """Along gradient descent, in powers (above) and in the orthonormal basis (below): training and test error by
    degree, and the components of the truth that the fit has by then."""
    fig, axes = style.panels(2, 3, 1.8, sharex=True)
    noise, t, degrees = float(found["sigma"]) ** 2, found["updates"], found["descended"]
    colors, truth = style.shades(len(degrees)), found["components_truth"]
    mark: dict[str, Any] = dict(
        marker="o", markersize=3.5, markeredgecolor="black", markeredgewidth=0.6, linestyle="none"
    )
    for row, name in zip(axes, ("powers", "legendre"), strict=True):
        for k, (degree, color) in enumerate(zip(degrees, colors, strict=True)):
            for ax, split in zip(row, ("train", "test"), strict=False):
                band(ax, t, found[f"{name}_{split}"][k], color=color, label=f"degree {degree}")
            best = int(np.argmin(found[f"{name}_test"][k][:, 1]))
            row[1].plot(t[best], found[f"{name}_test"][k][best, 1], color=color, zorder=5, **mark)
        decades(row[0], noise / 20, 1)
        decades(row[1], noise / 1.5, 1e4)
        for k, color in zip((1, 3, 5, 7), style.shades(4), strict=True):
            row[2].plot(t, found[f"{name}_components"][:, k] / truth[k], color=color, label=f"φ$_{k}$")
        row[2].set_ylim(-1.5, 1.7)
        row[2].axhline(1, color=GREY, linewidth=0.8)
        for ax in row:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(numticks=6))
            ax.xaxis.set_minor_locator(NullLocator())
        row[0].set_ylabel("mean squared error")
        row[2].set_ylabel("component / truth's")
    columns = ["training error", "test error", f"components, degree {len(truth) - 1}"]
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title)
    for ax in axes[1]:
        ax.set_xlabel("update of gradient descent")
    for ax, name in zip(axes[:, -1], ("powers of x / 5", "Legendre"), strict=True):
        ax.annotate(name, (1.03, 0.5), xycoords="axes fraction", rotation=270, va="center", ha="left")
    axes[0, 1].plot([], [], color="white", label="least test error", **mark)
    style.legend(fig, style.drawn(axes[:1, :2]))
    axes[0, 2].legend(loc="lower right", ncols=2, columnspacing=1.0)
    return fig


def figures(found: Arrays) -> Iterator[report.Drawn]:
    """Fits, and what they err by."""
    n, sigma, draws = int(found["points"]), float(found["sigma"]), found["test"].shape[1]
    yield (
        "fits",
        sines(found),
        f"y = sin x, {n} points with noise of deviation {sigma:g}, and polynomials of growing degree, with their "
        "mean squared errors at the training points and expected at new ones.",
    )
    yield (
        "parabola",
        parabolas(found),
        f"y = x² / 10 with noise {sigma:g}: a model too small, right, and too large. Underfits: the training error "
        "is above twice the noise²; overfits: not that, and the test error is above twice both.",
    )
    yield (
        "trade",
        trade(found),
        f"{draws} training sets of {n} points. Above: training and expected test error (medians, quartiles), and "
        "the mean test error as bias² + variance + noise² (bias² where the draws resolve it), beside what was "
        "counted on new points. Below: the same against ridge λ; and the median test error against the effective "
        "number of coefficients, made smaller by a lower degree, a larger λ, or fewer updates of gradient descent.",
    )
    yield (
        "beyond",
        beyond(found),
        "From as few coefficients as points to three times as many (dotted: as many), the fit of least norm. "
        "Medians and quartiles, and means over draws.",
    )
    yield (
        "descent",
        descents(found),
        "Gradient descent from w = 0 at half the largest stable rate, in powers of x / 5 and in the orthonormal "
        "basis. Medians and quartiles; circles: least median test error. Right: what the fit has of φ_k, over what "
        "sin x has.",
    )


def summary(found: Arrays) -> list[dict[str, Any]]:
    """A row a degree: the median training error, quartiles of the test error, its parts, what was counted on new
    points, and the ridge λ with the least test error."""
    rows = []
    noise = float(found["sigma"]) ** 2
    for k in drawn_degrees(found):
        train, test = (over_draws(found[name][k : k + 1])[0] for name in ("train", "test"))
        bias, variance = found["parts"][k]
        best = int(np.argmin(found["ridge_test"][k][:, 1]))
        rows.append(
            {
                "degree": found["degrees"][k],
                "training": train[1],
                "test": test,
                "bias": bias,
                "variance": variance,
                "sum": bias + variance + noise,
                "counted": found["counted"][k].mean(),
                "penalty": found["penalties"][best],
                "penalised": found["ridge_test"][k][best, 1],
            }
        )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """`summary` for the reader."""
    return [
        {
            "degree": str(r["degree"]),
            "training": number(r["training"]),
            "test": f"{number(r['test'][1])} ({number(r['test'][0])}–{number(r['test'][2])})",
            "bias²": number(r["bias"]) if r["bias"] > 0 else "≈ 0",
            "variance": number(r["variance"]),
            "sum with noise²": number(r["sum"]),
            "counted": number(r["counted"]),
            "best λ": f"{r['penalty']:.0e}",
            "test at it": number(r["penalised"]),
        }
        for r in rows
    ]


def text(found: Arrays) -> list[str]:
    """What was found, in sentences computed from the arrays."""
    degrees, noise = found["degrees"], float(found["sigma"]) ** 2
    test = over_draws(found["test"])[:, 1]
    best, worst, row = int(np.argmin(test)), int(np.argmax(test)), high(found)
    after = worst + int(np.argmin(test[worst:]))
    penalty = int(np.argmin(found["ridge_test"][row][:, 1]))
    k = int(np.flatnonzero(found["descended"] == found["descended"].max())[0])
    paths = {name: found[f"{name}_test"][k][:, 1] for name in ("powers", "legendre")}
    stops = "; ".join(
        f"{name}: {path.min():.2f} after {number(found['updates'][int(path.argmin())])} updates, "
        f"{number(path[-1])} in the end"
        for name, path in paths.items()
    )
    ridge = found["ridge_test"][:, int(np.argmin(np.abs(found["penalties"] - WEAK))), 1]
    return [
        f"Median test error is least at degree {degrees[best]}, {test[best]:.3f} (noise² {noise:g}), "
        f"greatest at degree {degrees[worst]}, {number(test[worst])}, where coefficients equal points, and "
        f"falls again to {test[after]:.3f} at degree {degrees[after]}: a second descent, to "
        f"{test[after] / test[best]:.1f} times the least of the first. Ridge at λ = {WEAK:g} has at most "
        f"{ridge.max():.2f} over all degrees. At degree {degrees[row]} the best λ, {found['penalties'][penalty]:.0e}, "
        f"gives {found['ridge_test'][row][penalty, 1]:.3f}. Early stopping at degree {found['descended'][k]}, by "
        f"basis: {stops}."
    ]


def show(out: Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws what was measured, and prints the table and where the figures lie; the page has the verdicts."""
    found = read(out)
    rows = table(summary(found))
    caption = f"Medians and quartiles, means, over {found['test'].shape[1]} draws"
    made = {"versions": {"numpy": np.__version__}, "config": json.loads(str(found["settings"]))}
    tables = [(caption, rows), *claims.tables(verdicts)]
    return report.publish(out, "Polynomials", text(found), figures(found), tables, into=out, made=made)
