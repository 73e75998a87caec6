"""What `experiments.reproduce.flossing` alone has: claims of Lyapunov exponents, and their figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from analysis import outcomes, reproduced, style
from analysis.published import Cases, learned_at
from seqdyn.runs import manifest
from seqdyn.runs.records import load

if TYPE_CHECKING:
    import xarray as xr


ACCURACY = 0.99
"""What the updates are counted to."""
VALUES = (*reproduced.VALUES, "reached", "speed_reached", "condition_start")
"""What `columns` says of a run, besides what the grid and the specs say."""


def columns(*parts: Path) -> "xr.Dataset":
    """What `reproduced.columns` says of each run, and

    reached: 1 if a look met `ACCURACY`, else 0; speed_reached: 1 over the updates to that look, 0 if there was none.
    condition_start: (λ_1 − λ_k) T at initialisation, in decades, of the k exponents that are to be flossed; of all H
        of them and long T it is the condition number of the Jacobian over T steps.
    """
    return outcomes.gathered(parts, measured)


def measured(part: Path) -> dict[str, np.ndarray]:
    """Of one part: name -> values [run]."""
    known, when = reproduced.measured(part), learned_at(part, ACCURACY)
    unknown, k = np.isnan(known["test_loss"]) & np.isinf(when), manifest.read(part)["config"].get("exponents")
    of = exponents(part, 0)[:, :k]
    values = {
        "reached": np.isfinite(when).astype(float),
        "speed_reached": reproduced.speed(when),
        "condition_start": (of[:, 0] - of[:, -1]) * load(part)["steps"].values / np.log(10),
    }
    return known | values | {name: np.where(unknown, np.nan, values[name]) for name in ("reached", "speed_reached")}


def exponents(out: Path, when: int) -> Float[np.ndarray, "run mode"]:
    """Of each run at a look: 0 the first, made before training, −1 the last. Largest first; NaN if none were read."""
    ds = load(out)
    if "lyapunov_exponent" not in ds:
        return np.full((ds.sizes["run"], 1), np.nan)
    return -np.sort(-ds["lyapunov_exponent"].isel(probe=when, layer=0).values, axis=-1)


def spectra(panels: Mapping[str, Cases], flossed: int) -> Figure:
    """λ_i against i: rows before and after training, columns panels, a curve a case; a line behind the last i that was
    flossed."""
    fig, axes = style.panels(2, len(panels), 1.35, sharex=True, sharey=True)
    for row, when in zip(axes, (0, -1), strict=True):
        for ax, cases in zip(row, panels.values(), strict=True):
            ax.axhline(0, color="0.4", linewidth=0.8, linestyle=style.DASHES[1])
            for (case, out), color in zip(cases.items(), style.OKABE, strict=False):
                values = exponents(out, when)
                style.median_band(ax, np.arange(1, values.shape[-1] + 1), values, color=color, label=case)
            ax.axvline(flossed + 0.5, color="0.4", linewidth=0.8, linestyle=style.DASHES[2], label="flossed up to here")
            ax.set_xlim(0, None)
    style.frame(axes, ["at initialisation", "trained"], list(panels), "index of the exponent", "nats per step")
    style.legend(fig, style.drawn(axes))
    return fig
