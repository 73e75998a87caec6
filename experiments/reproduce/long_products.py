"""Bar, Seleznova et al. 2025, 'Revisiting Glorot Initialization for Long-Range Linear Recurrences' (arXiv 2505.19827).

Claim (their abstract): with entries N(0, 1/n), Glorot's, the largest |eigenvalue| of W lies a little above 1, so that
h_t = W h_{t−1} + x_t explodes once t = O(√n); 5.6 to 8.7 √n steps are reported. A rescaling that knows n, and brings
the radius just below 1, helps.
Setting: W [n, n] real, n from 32 to 512, x_t ~ N(0, 1/n) at every step, float64. If all powers of W kept the norm,
E‖h_t‖² would be t; the recurrence counts as exploded when ‖h_t‖² is ten times that. Not as there, whose criterion and
whose factor were not at hand: this one, and W / (1 + 1/√n). By theory √n (ϱ(W) − 1) lies, for large n, about √γ/2,
γ = log n − 2 log log n − log 2π (Rider & Sinclair 2014): t/√n stays bounded and even falls, very slowly.
Cost: 600 networks, 80 seconds of processor time; `--paper` goes to n = 2048, an hour or more.
Expect: the claim. At n = 512 every median of three networks explodes, half of them within 5.4 √n steps (interval 5.0
to 6.8), so whether 5.6 to 8.7 is right stays undecided; divided by 1 + 1/√n, none does in 30 √n. What
does not explode by then counts as infinite in a median, so no seed is left out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from analysis import long_products as analysis
from analysis import style
from analysis.claims import Claim, Statistic, of
from analysis.long_products import FACTOR, LAST, REPORTED
from analysis.measured import show
from experiments import _measured
from seqdyn.runs.script import Seeds, script, seeds, with_preset
from seqdyn.types import whole

SOURCE = "Bar et al. 2025"


@dataclass(frozen=True, kw_only=True)
class Config(_measured.Presets):
    """How many networks, and how wide."""

    seeds: Seeds = 40
    """Seeds: how many, from 0 on, a range or a list. Each draws `nets` networks of each width."""
    nets: int = 3
    """Networks of a seed and width, whose median is the seed's value."""
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    """n, units."""
    sequences: int = 8
    """Inputs x_1 … x_t of a network, over which ‖h_t‖² is averaged."""


def norms(w: Float[np.ndarray, "*b n n"], sequences: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """‖h_t‖²/t of h_t = W h_{t−1} + x_t from rest, t = 1 … steps: means over the sequences [*b, steps].

    E‖h_t‖² = Σ_{k<t} E‖W^k x‖², E over x ~ N(0, I/n) too: t if W is orthogonal.
    """
    n = w.shape[-1]
    h = np.zeros((*w.shape[:-1], sequences))
    found = []
    for t in range(1, steps + 1):
        h = w @ h + rng.standard_normal(h.shape) / n**0.5
        found.append(np.sum(h * h, axis=-2).mean(axis=-1) / t)
    return np.stack(found, axis=-1)


def measured(c: Config) -> dict[str, Any]:
    """Of each seed and width: √n (ϱ − 1) of its first network, and after how many √n steps ‖h_t‖² explodes."""
    rows, curves = [], []
    for n in c.widths:
        steps = round(LAST * n**0.5)
        grid = np.unique(np.geomspace(1, steps, 60).round().astype(int))
        of_n: dict[str, list[np.ndarray]] = {"glorot": [], "rescaled": []}
        for seed in seeds(c.seeds):
            rng = np.random.default_rng((seed, n))
            w = rng.standard_normal((c.nets, n, n)) / n**0.5
            row: dict[str, Any] = {"seed": seed, "n": n}
            row["excess"] = n**0.5 * (float(np.abs(np.linalg.eigvals(w[0])).max()) - 1)
            for name, factor in {"glorot": 1.0, "rescaled": 1 + n**-0.5}.items():
                squares = norms(w / factor, c.sequences, steps, rng)
                lengths = analysis.exploded(squares) / n**0.5
                row[name] = float(np.median(lengths))
                row[f"{name}_stays"] = float(np.median(lengths) == np.inf)
                of_n[name] += list(squares[:, grid - 1])
            rows.append(row)
        curves += [
            {"n": n, "init": name, "t": grid.tolist(), "quartiles": style.quartiles(np.asarray(values)).tolist()}
            for name, values in of_n.items()
        ]
    return {"rows": rows, "curves": curves}


def growth(low: int, high: int) -> Statistic:
    """How the logarithm of t/√n grows with that of n."""

    def values(runs: Any) -> Any:
        ends = [np.log(of("glorot", n=n)(runs)) for n in (high, low)]
        return (ends[0] - ends[1]) / np.log(high / low)

    return values


def stated(c: Config) -> list[Claim]:
    """What is claimed of these widths."""
    low, high = min(c.widths), max(c.widths)
    middle = sum(REPORTED) / 2

    def off(runs: Any) -> Any:
        return of("glorot", n=high)(runs) - middle

    bound = f"t/√n does not grow: exponent of n, from {low} to {high}"
    length = f"n = {high}: ‖h_t‖² passes {FACTOR:.0f} t at t/√n − {middle:.2f}"
    return [
        Claim(f"n = {high}: √n (ϱ(W) − 1)", "median", of("excess", n=high), 0, source=SOURCE, paper="> 0"),
        Claim(bound, "slope", growth(low, high), 0.1, "below", SOURCE, paper="≤ 0"),
        Claim(length, "median", off, REPORTED[1] - middle, "within", "as reported", paper="−1.55 to 1.55"),
        Claim(
            f"n = {high}: W / (1 + 1/√n) is stable for {LAST} √n steps",
            "proportion",
            of("rescaled_stays", n=high),
            0.5,
            source=SOURCE,
            paper="stable",
        ),
        Claim(
            f"n = {high}: Glorot's W is stable for {LAST} √n steps",
            "proportion",
            of("glorot_stays", n=high),
            0.5,
            "below",
            SOURCE,
            paper="unstable",
        ),
    ]


def main(config: Config) -> None:
    """Measures, keeps every number, draws, and holds the paper against it."""
    config = with_preset(
        config, smoke=dict(seeds=2, nets=1, widths=(8, 16)), paper=dict(widths=(32, 64, 128, 256, 512, 1024, 2048))
    )
    for n in config.widths:
        whole("widths", n, 2)
    for name in ("nets", "sequences"):
        whole(name, getattr(config, name), 1)
    n = max(config.widths, default=0)
    sizes = {"widths": n, "nets": config.nets, "sequences": config.sequences}
    _measured.check_memory(sizes, config.nets * n * (n + config.sequences))
    show(_measured.once("long_products", config, measured), stated(config), analysis.figure)


if __name__ == "__main__":
    script(Config, main, __doc__)
