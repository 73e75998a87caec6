"""The figure of `experiments.reproduce.flossing` that no other reproduction has: Lyapunov spectra, before and after."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from analysis import style
from analysis.cures import COLORS
from analysis.published import Cases
from seqdyn.runs.records import load


def exponents(cases: Cases, case: str, when: int) -> Float[np.ndarray, "run mode"]:
    """Of each run of a case at a look: 0 the first, made before training, −1 the last. Largest first."""
    found = load(cases[case])["lyapunov_exponent"].isel(probe=when, layer=0).values
    return -np.sort(-found, axis=-1)


def spectra(panels: Mapping[str, Cases], flossed: int) -> Figure:
    """λ_i against i: rows before and after training, columns panels, a curve a case; a line behind the last i that was
    flossed."""
    fig, axes = style.panels(2, len(panels), 1.35, sharex=True, sharey=True)
    for row, when in zip(axes, (0, -1), strict=True):
        for ax, cases in zip(row, panels.values(), strict=True):
            ax.axhline(0, color="0.4", linewidth=0.8, linestyle=style.DASHES[1])
            for case, color in zip(cases, COLORS, strict=False):
                values = exponents(cases, case, when)
                style.median_band(ax, np.arange(1, values.shape[-1] + 1), values, color=color, label=case)
            ax.axvline(flossed + 0.5, color="0.4", linewidth=0.8, linestyle=style.DASHES[2], label="flossed up to here")
            ax.set_xlim(0, None)
    style.frame(axes, ["at initialisation", "trained"], list(panels), "index of the exponent", "nats per step")
    style.legend(fig, style.drawn(axes))
    return fig
