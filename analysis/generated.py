"""What lies in a run directory of `experiments.synthetic`, and the figures of the sequences that were drawn."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from analysis import style
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import seeds
from seqdyn.types import ConfigError

ARRAYS, FACTS = "generated.npz", "generated.json"
COLORS = {"real": style.BLACK, "vae": style.BLUE, "gan": style.VERMILION}
NAMES = {"real": "real", "vae": "VAE", "gan": "GAN"}
SHADES = {0.0: style.GREEN, 0.5: style.PURPLE, 1.0: style.BLUE}
"""Of the decoder's history."""
LATE = 6
"""Over the median of its last sixth of updates a trained network is read."""


def setting(history: float, annealed: bool) -> str:
    """'history 0.5, annealed'."""
    return f"history {history:g}, {'annealed' if annealed else 'plain'}"


class Found(NamedTuple):
    """What lies in a run directory."""

    samples: dict[str, np.ndarray]
    facts: dict[str, Any]
    generators: dict[tuple[str, str], list[Any]]
    """(data set, setting of the VAE or 'gan') -> the run that was trained on most sequences, a seed each"""
    scores: dict[tuple[str, str, str, int], np.ndarray]
    """(data set, judgement, model, size) -> a score a seed"""
    part: Path
    """One judge's directory, whose gradient was held against autodiff if any was."""


def read(out: Path) -> Found:
    """Raises ConfigError if the directory is no such run."""
    parts = sorted(p.parent for p in (out / "judges").glob(f"*/{manifest.NAME}"))
    if not (parts and (out / ARRAYS).is_file() and (out / FACTS).is_file()):
        raise ConfigError(f"{out} lacks run directories of experiments/synthetic.py; give the directory that it made.")
    with np.load(out / ARRAYS) as file:
        samples = {name: file[name] for name in file.files}
    scores: dict[Any, dict[int, float]] = {}
    for part in parts:
        s = manifest.experiment(part).settings
        score = float(load(part)["test_accuracy"].values[:, -1].mean())
        scores.setdefault((s["source"], s["what"], s["model"], s["size"]), {})[s["seed"]] = score
    part = next((p for p in parts if manifest.read(p)["verified"]), parts[0])
    facts = json.loads((out / FACTS).read_text(encoding="utf-8"))
    for name, of in facts.items():
        for which, values in of["trts"].items():
            scores[name, "trts", which, of["sizes"][-1]] = dict(zip(seeds(of["seeds"]), values, strict=True))
    generators: dict[tuple[str, str], list[Any]] = {}
    for name, of in facts.items():
        for which in ("vae", "gan"):
            for seed in seeds(of["seeds"]):
                ds = load(out / "generators" / f"{name}_{which}_{of['sizes'][-1]}_{seed}")
                for i in range(ds.sizes["run"]):
                    run = ds.isel(run=i)
                    label = "gan" if which == "gan" else setting(float(run.history), bool(run.anneal > 0))
                    generators.setdefault((name, label), []).append(run)
    of_seeds = {k: np.array([v[i] for i in seeds(facts[k[0]]["seeds"])]) for k, v in scores.items()}
    return Found(samples, facts, generators, of_seeds, part)


def said(values: np.ndarray, digits: int = 3) -> str:
    """'0.912 ± 0.010'."""
    mean, wide = style.mean_reach(values)
    return f"{mean:.{digits}f} ± {wide:.{digits}f}"


def kl(found: Found, name: str, which: str) -> tuple[np.ndarray, np.ndarray]:
    """(updates done, KL [seed, look], the mean over the training batches since the look before)"""
    runs = found.generators[name, which]
    looks = runs[0].probe_step.values[1:]
    return looks, np.stack([run.kl.values.reshape(len(looks), -1).mean(axis=1) for run in runs]).astype(float)


# --- samples --------------------------------------------------------------------------------------------------


def digits(found: Found, name: str) -> Figure:
    """A block of images each for real, VAE, GAN: a row a class, four columns."""
    classes = found.facts[name]["classes"]
    fig, axes = style.panels(1, 3, 2.6)
    fig.set_size_inches(style.PAGE * 0.8, 0.26 * classes + 0.4)
    for ax, (which, title) in zip(axes[0], NAMES.items(), strict=True):
        xs, ys = (found.samples[f"{name}/{which}/{part}"] for part in ("xs", "ys"))
        side = xs.shape[1] + 1
        sheet = np.zeros((classes * side + 1, 4 * (xs.shape[2] + 1) + 1))
        for y in range(classes):
            for column, x in enumerate(xs[ys == y][:4]):
                sheet[y * side + 1 :, column * side + 1 :][: x.shape[0], : x.shape[1]] = x
        ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([side * (y + 0.5) for y in range(classes)], [str(y) for y in range(classes)])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(title)
    axes[0, 0].set_ylabel("class")
    return fig


def curves(found: Found, name: str, features: int = 3, classes: int = 2) -> Figure:
    """A column for real, VAE, GAN, a row a class: the first features of four sequences against the step."""
    fig, axes = style.panels(classes, 3, 1.15, sharex=True, sharey=True)
    fig.set_figwidth(style.PAGE * 0.9)
    shades = list(SHADES.values())
    for column, which in enumerate(NAMES):
        xs, lengths, ys = (found.samples[f"{name}/{which}/{part}"] for part in ("xs", "lengths", "ys"))
        for y, ax in enumerate(axes[:, column]):
            for x, n in zip(xs[ys == y], lengths[ys == y], strict=True):
                for feature in range(features):
                    color, label = shades[feature], f"coefficient {feature + 1}"
                    ax.plot(np.arange(1, n + 1), x[len(x) - n :, feature], color=color, linewidth=0.8, label=label)
    style.frame(axes, [f"speaker {y + 1}" for y in range(classes)], list(NAMES.values()), "frame", "standardised")
    style.legend(fig, style.drawn(axes))
    return fig
