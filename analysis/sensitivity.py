"""What `experiments.reproduce.sensitivity` found: E‖∂h/∂p‖² against memory, and the loss's Hessian at its optimum."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis import style
from seqdyn.theory import linear_sensitivity


def theory(size: Any) -> dict[str, Any]:
    """E‖∂h/∂p‖² of each parameter, exactly, for T = ∞: of λ `linear_sensitivity`; of ν and θ, γ² = 1 − |λ|²."""
    of_lambda = np.vectorize(linear_sensitivity)(size)
    total, gamma = size**2 * of_lambda, 1 - size**2
    return {"lambda": of_lambda, "nu": gamma * np.log(size) ** 2 * total, "theta": gamma * total}


def figure(found: dict[str, Any]) -> Figure:
    """Sensitivities against 1 / (1 − |λ|) beside the theory; eigenvalues; parameters in the steepest directions."""
    rows = found["rows"]
    states = [row for row in rows if row["of"] == "state"]
    sizes = np.asarray(sorted({row["size"] for row in states}))
    fig, axes = style.panels(1, 3, 2.2)
    left, middle, right = axes[0]
    fine = np.linspace(sizes[0], sizes[-1], 200)
    names = {"lambda": "λ itself", "nu": "ν, λ = exp(−exp ν + iθ), normalised", "theta": "θ of that"}
    for (name, label), color in zip(names.items(), style.OKABE, strict=False):
        left.plot(1 / (1 - fine), theory(fine)[name], color=color, linewidth=0.9)
        values = [np.asarray([r[name] for r in states if r["size"] == size]) for size in sizes]
        low, mid, high = np.stack([style.quartiles(v) for v in values], axis=1)
        bars: dict[str, Any] = dict(capsize=2, marker="o", markersize=3, linewidth=0, elinewidth=1, color=color)
        left.errorbar(1 / (1 - sizes), mid, [mid - low, high - mid], label=label, **bars)
    left.plot([], [], color="0.3", linewidth=0.9, label="theory")
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("memory 1 / (1 − |λ|)")
    left.set_ylabel("E‖∂h/∂p‖²")
    kinds = {"dense": "dense", "diagonal": "diagonal", "lru": "LRU"}
    shades = dict(zip(kinds, (style.PURPLE, style.ORANGE, style.VERMILION), strict=True))
    for name in kinds:
        spectra = np.asarray([s["eigenvalues"] for s in found["spectra"] if s["of"] == name])
        spectra = np.maximum(spectra, 1e-9)
        style.median_band(middle, np.arange(1, spectra.shape[1] + 1), spectra, color=shades[name], label=kinds[name])
    middle.set_yscale("log")
    middle.set_ylim(1e-2, None)
    middle.set_xlim(0.5, 10)
    middle.set_xlabel("number, from the largest")
    middle.set_ylabel("eigenvalue of the Hessian")
    for at, name in enumerate(kinds):
        reach = np.asarray([row["reach"] for row in rows if row["of"] == name])
        jitter = np.linspace(-0.25, 0.25, len(reach))
        right.plot(at + jitter, reach, ".", color=shades[name], markersize=4)
        right.plot([at - 0.3, at + 0.3], [np.median(reach)] * 2, color="0.2", linewidth=1)
    right.set_xticks(range(len(kinds)), list(kinds.values()))
    right.set_ylim(0, None)
    right.set_ylabel("parameters in a steep direction")
    style.legend(fig, style.drawn(axes))
    return fig
