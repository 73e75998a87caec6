"""Figures, table and report of `experiments.synthetic`: what the generators draw, whether the posterior collapsed, how
far the ELBO is from the likelihood, what a classifier learns from the samples, and where the gradients die.

Scores are means over the judges of a seed; intervals are Student's, 95%, over the seeds of generators.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from analysis import claims, measured, report, style
from analysis.generated import COLORS, LATE, NAMES, SHADES, Found, curves, digits, kl, read, said, setting
from analysis.style import mean_reach
from seqdyn.runs.script import RUN_DIR, script, seeds

if TYPE_CHECKING:
    import xarray as xr

JUDGED = {"tstr": "TSTR", "trts": "TRTS", "discriminative": "discriminative"}
"""Train on synthetic and test on real, the reverse, and can a judge tell one from the other: names in the table."""


# --- the posterior --------------------------------------------------------------------------------------------


def collapse(found: Found) -> Figure:
    """KL of training batches and ELBO of validation against update; colours the history, dashes without annealing."""
    names = list(found.facts)
    fig, axes = style.panels(2, len(names), 1.6, sharex=True)
    fig.set_figwidth(style.PAGE * 0.9)
    for column, name in enumerate(names):
        lowest = []
        for history, color in SHADES.items():
            for annealed in (False, True):
                which = setting(history, annealed)
                line: dict[str, Any] = dict(color=color, linestyle=style.DASHES[0 if annealed else 1], label=which)
                style.median_band(axes[0, column], *kl(found, name, which), **line)
                runs = found.generators[name, which]
                elbo = -np.stack([run.validation_loss.values for run in runs]).astype(float)
                style.median_band(axes[1, column], runs[0].probe_step.values, elbo, **line)
                lowest.append(np.median(elbo, axis=0).max())
        axes[1, column].set_ylim(max(lowest) - 8 * max(20.0, np.ptp(lowest)) / 4, max(lowest) + 8)
        axes[0, column].set_ylim(0, None)
    style.frame(axes, ["KL(q ‖ p)", "ELBO"], names, "update", "nats a sequence")
    style.legend(fig, style.drawn(axes))
    return fig


def bounds(found: Found) -> Figure:
    """L_k − L_1 against k: what the ELBO left out."""
    names = list(found.facts)
    fig, axes = style.panels(1, len(names), 1.7)
    fig.set_figwidth(style.PAGE * 0.9)
    for ax, name in zip(axes[0], names, strict=True):
        for history, color in SHADES.items():
            for annealed in (False, True):
                judged = found.facts[name]["settings"][setting(history, annealed)]
                ks = [int(k) for k in judged[0]["bounds"]]
                rise = np.array([[j["bounds"][str(k)] - j["bounds"]["1"] for k in ks] for j in judged])
                line: dict[str, Any] = dict(color=color, linestyle=style.DASHES[0 if annealed else 1], marker="o")
                style.median_band(ax, np.array(ks), rise, markersize=3, label=setting(history, annealed), **line)
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(NullLocator())
    style.frame(axes, [""], names, "samples k", "L$_k$ − ELBO (nats)")
    style.legend(fig, style.drawn(axes))
    return fig


# --- the judges -----------------------------------------------------------------------------------------------


def inside(ax: Any) -> None:
    """No axis of accuracies goes beyond 0 and 1."""
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, 0.0), min(high, 1.0))


def judged(found: Found) -> Figure:
    """A row a data set: TSTR and TRTS beside real on real; the discriminative score; real + synthetic against size."""
    names = list(found.facts)
    fig, axes = style.panels(len(names), 3, 1.6)
    bars: dict[str, Any] = dict(capsize=2, marker="o", markersize=4, linewidth=1)
    for row, name in zip(axes, names, strict=True):
        sizes = found.facts[name]["sizes"]
        real = found.scores[name, "mixed", "real", sizes[-1]]
        for i, what in enumerate(("tstr", "trts")):
            for shift, which in ((-0.08, "vae"), (0.08, "gan")):
                mean, wide = mean_reach(found.scores[name, what, which, sizes[-1]])
                row[0].errorbar(
                    i + shift, mean, wide, color=COLORS[which], label=NAMES[which], linestyle="none", **bars
                )
        mean, wide = mean_reach(real)
        row[0].axhline(mean, color="black", linewidth=1, label="real")
        row[0].axhspan(mean - wide, mean + wide, color="black", alpha=0.15, linewidth=0)
        row[0].set_xticks([0, 1], ["train synthetic,\ntest real", "train real,\ntest synthetic"])
        row[0].set_xlim(-0.5, 1.5)
        row[0].set_ylabel("accuracy")
        inside(row[0])
        for i, which in enumerate(("vae", "gan")):
            mean, wide = mean_reach(np.abs(found.scores[name, "discriminative", which, sizes[-1]] - 0.5))
            row[1].errorbar(i, mean, wide, color=COLORS[which], **bars)
        row[1].set_xticks([0, 1], ["VAE", "GAN"])
        row[1].set(xlim=(-0.5, 1.5), ylim=(0, 0.52))
        row[1].set_ylabel("|accuracy − ½|")
        for shift, (which, color) in zip((-0.03, 0, 0.03), COLORS.items(), strict=True):
            got = [mean_reach(found.scores[name, "mixed", which, n]) for n in sizes]
            at = np.array(sizes) * np.exp(shift)
            label = "real" if which == "real" else f"real + {NAMES[which]}"
            spread = [wide for _, wide in got]
            row[2].errorbar(at, [m for m, _ in got], spread, color=color, label=label, **bars)
        row[2].set_xscale("log")
        row[2].set_xticks(sizes, [f"{n:,}" for n in sizes])
        row[2].xaxis.set_minor_locator(NullLocator())
        row[2].set_ylabel("test accuracy")
        inside(row[2])
    for ax, title in zip(axes[0], ("trained on one, tested on the other", "told from real", "mixed"), strict=True):
        ax.set_title(title)
    axes[-1, 2].set_xlabel("real training sequences")
    for ax, name in zip(axes[:, -1], names, strict=True):
        ax.annotate(name, (1.03, 0.5), xycoords="axes fraction", rotation=270, va="center", ha="left")
    style.legend(fig, style.drawn(axes))
    return fig


# --- the gradients --------------------------------------------------------------------------------------------

NETWORKS = ("encoder", "decoder", "critic", "generator")


def norms(found: Found, name: str, network: str, which: str, late: bool) -> np.ndarray:
    """‖λ_t‖ [seed, lag] of a network at its first update, or the median of its last looks, at lags that a tenth of the
    sequences reach."""
    of = found.facts[name]["chosen"] if network in ("encoder", "decoder") else "gan"
    picked = []
    for run in found.generators[name, of]:
        record = run[{"adjoint": "adjoint_norm", "from step t + 1": "carried_norm"}[which]].sel(layer=network)
        last = record.sizes["step"] // LATE
        picked.append(record[-last:].median("step").values if late else record[0].values)
    reached = round(np.quantile(found.samples[f"{name}/real/lengths"], 0.9))  # beyond, of a few sequences alone
    return np.stack(picked).astype(float)[:, ::-1][:, :reached]


def gradients(found: Found) -> Figure:
    """A column a network, a row a data set: the adjoint and its part from step t + 1 by lag, before and after."""
    names = list(found.facts)
    fig, axes = style.panels(len(names), len(NETWORKS), 1.4, sharey="row")
    for row, name in zip(axes, names, strict=True):
        drawn = []
        for ax, network in zip(row, NETWORKS, strict=True):
            for late, color in ((False, style.ORANGE), (True, style.BLUE)):
                when = "trained" if late else "at initialisation"
                for which, dashes in (("adjoint", style.DASHES[0]), ("from step t + 1", style.DASHES[1])):
                    values = norms(found, name, network, which, late)
                    values = np.where(values > 0, values, np.nan)
                    lags = np.arange(values.shape[1])
                    line: dict[str, Any] = dict(color=color, linestyle=dashes, label=f"{which}, {when}")
                    drawn.append(style.median_band(ax, lags, values, **line))
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        style.log_axis(row, drawn)
    style.frame(axes, names, list(NETWORKS), "lag T − t (steps)", "‖∂L/∂h$_t$‖")
    style.legend(fig, style.drawn(axes))
    return fig


def fall(found: Found, name: str, network: str, late: bool) -> np.ndarray:
    """The adjoint from the next step at the largest lag that `norms` has over that at lag 1, a value a seed; NaN where
    one of them is no number above 0."""
    first, last = norms(found, name, network, "from step t + 1", late)[:, [1, -1]].T
    return np.where((first > 0) & (last > 0), last, np.nan) / np.where(first > 0, first, 1.0)


# --- what claims are about ------------------------------------------------------------------------------------


def columns(found: Found) -> "xr.Dataset":
    """A `value` for each data set, seed, `what`, `of` what, and `size`, the number of real sequences (0: the largest):

    mixed, tstr, trts: accuracies; told: |accuracy − ½| of real against synthetic; of real, vae or gan.
    kl, elbo: of a setting of the VAE, on test sequences, in nats.
    fall, fall_trained: log₁₀ of `fall`, of a network at initialisation and trained.
    """
    rows: list[dict[str, Any]] = []

    def add(name: str, what: str, of: str, size: int, values: Any) -> None:
        numbered = zip(seeds(found.facts[name]["seeds"]), values, strict=True)
        rows.extend(dict(data=name, what=what, of=of, size=size, seed=seed, value=value) for seed, value in numbered)

    for (name, what, of, size), scores in found.scores.items():
        size = 0 if size == found.facts[name]["sizes"][-1] else size
        told = what == "discriminative"
        add(name, "told" if told else what, of, size, np.abs(scores - 0.5) if told else scores)
    for name, facts in found.facts.items():
        for of, judged in facts["settings"].items():
            add(name, "kl", of, 0, [one["kl"] for one in judged])
            add(name, "elbo", of, 0, [one["bounds"]["1"] for one in judged])
        for network in NETWORKS:
            for what, late in (("fall", False), ("fall_trained", True)):
                add(name, what, network, 0, np.log10(fall(found, name, network, late)))
    return measured.columns(rows)


# --- in words -------------------------------------------------------------------------------------------------


def posterior_table(found: Found) -> list[dict[str, str]]:
    """Per setting of the VAE: KL, active latent numbers, ELBO and the bound at the largest k, on test sequences."""
    rows = []
    for name, facts in found.facts.items():
        for which, judged in facts["settings"].items():
            last = list(judged[0]["bounds"])[-1]
            elbo, high = (np.array([j["bounds"][k] for j in judged]) for k in ("1", last))
            looks, curve = kl(found, name, which)
            begun = len(looks) // 10  # an untrained posterior is near the prior, too
            rows.append(
                {
                    "data": name,
                    "setting": which + (" (chosen)" if which == facts["chosen"] else ""),
                    "KL": said(np.array([j["kl"] for j in judged]), 1),
                    f"least KL after update {int(looks[begun - 1]) if begun else 0}": said(
                        curve[:, begun:].min(axis=1), 1
                    ),
                    "active": f"{np.mean([j['active'] for j in judged]):.1f}",
                    "ELBO": said(elbo, 1),
                    f"L_{last}": said(high, 1),
                    f"L_{last} − ELBO": said(high - elbo, 1),
                }
            )
    return rows


def summary(found: Found) -> list[dict[str, Any]]:
    """A row per data set and generator, a value a seed: test accuracies by the number of real sequences beside the
    drawn ones, and what judges say of the drawn ones; None where there are none."""
    rows = []
    for name, facts in found.facts.items():
        for which in NAMES:
            judged = {what: found.scores.get((name, what, which, facts["sizes"][-1])) for what in JUDGED}
            told = judged["discriminative"]
            judged["discriminative"] = None if told is None else np.abs(told - 0.5)
            real = {n: found.scores[name, "mixed", which, n] for n in facts["sizes"]}
            rows.append({"data": name, "generator": which, "real": real} | judged)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """`summary` for the reader."""
    sizes = list(dict.fromkeys(n for r in rows for n in r["real"]))
    return [
        {"data": r["data"], "trained on": "real" if r["generator"] == "real" else f"real + {NAMES[r['generator']]}"}
        | {f"{n} real": said(r["real"][n]) if n in r["real"] else "–" for n in sizes}
        | {JUDGED[what]: "–" if r[what] is None else said(r[what]) for what in JUDGED}
        for r in rows
    ]


def helps(found: Found) -> str:
    """Where synthetic sequences changed the test accuracy: seeds are paired, an interval of the difference that leaves
    out 0 is a change."""
    lines = []
    for name, facts in found.facts.items():
        for which in ("vae", "gan"):
            for n in facts["sizes"]:
                mean, wide = mean_reach(found.scores[name, "mixed", which, n] - found.scores[name, "mixed", "real", n])
                verdict = "no difference that can be told" if abs(mean) <= wide else "helps" if mean > 0 else "harms"
                lines.append(f"{name}, {n} real + {NAMES[which]}: {mean:+.3f} ± {wide:.3f}, {verdict}")
    return "; ".join(lines) + "."


def text(found: Found) -> list[str]:
    """Paragraphs computed from the records."""
    said_of = []
    for name, facts in found.facts.items():
        kls = {w: np.mean([j["kl"] for j in judged]) for w, judged in facts["settings"].items()}
        least, most = min(kls, key=lambda w: kls[w]), max(kls, key=lambda w: kls[w])
        said_of.append(
            f"{name}: KL lies between {kls[least]:.1f} nats ({least}) and {kls[most]:.1f} ({most}); "
            f"the setting with the best validation ELBO, {facts['chosen']}, draws the samples."
        )
    falls = "; ".join(
        f"{name}, {network}: {style.median(fall(found, name, network, False)):.2g} → "
        f"{style.median(fall(found, name, network, True)):.2g}"
        for name in found.facts
        for network in NETWORKS
    )
    return [
        " ".join(said_of),
        "Real and synthetic sequences against the real alone, test accuracy: " + helps(found),
        "The gradient from the next step, at the largest lag over that at lag 1, at initialisation → trained: "
        f"{falls}. The encoder is read out at its end alone; decoder, critic and generator receive an error of their "
        "own at every step.",
        "Scores are means over the judges of a seed; ± is Student's 95% interval over the seeds of generators, each "
        "with its own order of the training examples. Judges are read after their last update; nothing is chosen.",
    ]


def figures(found: Found) -> Iterator[report.Drawn]:
    """Samples, how the posterior collapses, how samples are judged, and the gradient."""
    for name in found.facts:
        yield (
            f"samples_{name}",
            (digits if name == "digits" else curves)(found, name),
            f"{name}: real training sequences, and samples of the VAE and of the GAN, four of each class.",
        )
    yield (
        "collapse",
        collapse(found),
        "KL of training batches and ELBO on validation along training, by how often the decoder is given x_{t−1} and "
        "with (solid) or without (dashed) annealing. Medians and quartiles over seeds.",
    )
    yield (
        "bounds",
        bounds(found),
        "The importance-weighted bound L_k over the ELBO, on test sequences, at the update that validation chose.",
    )
    yield (
        "judged",
        judged(found),
        "Accuracy of a classifier trained on synthetic and tested on real sequences and the reverse (line: real on "
        "real); the discriminative score, 0 if nobody can tell; and training on real and synthetic sequences together. "
        "95% intervals over seeds.",
    )
    yield (
        "gradients",
        gradients(found),
        "‖∂L/∂h_t‖, and the part of it that came from step t + 1, in the four networks; the critic's is of its "
        "score of what is generated. Medians and quartiles over seeds.",
    )


def show(out: str | Path) -> list[Path]:
    """Draws a run directory and prints its tables and where the figures lie; the page has the claims that were kept."""
    out, found = Path(out), read(Path(out))
    scores, posteriors = table(summary(found)), posterior_table(found)
    tables = [
        ("Test accuracy and scores, 95% intervals over seeds", scores),
        ("The VAE on test sequences, nats a sequence", posteriors),
        *claims.kept(out),
    ]
    printed = [posteriors, scores]
    title = "Synthetic sequences"
    return report.publish(found.part, title, text(found), figures(found), tables, into=out, printed=printed)


if __name__ == "__main__":
    script(RUN_DIR, show, __doc__)
