"""How much can a model fit, and when is it too much? Polynomials, whose capacity is counted in coefficients, and
recurrent networks, whose capacity in use grows as they are trained.

Polynomials: y = sin x on [−5, 5], 20 points with noise of deviation 0.3, degrees 1 (without bias), 3, …, 17 by least
squares; x² / 10 with a model too small, right and too large; bias² + variance + noise² over 500 training sets, by
degree and by ridge λ, and by degree up to 60, beyond as many coefficients as points (Belkin, Hsu, Ma & Mandal 2019);
gradient descent in powers of x and in an orthonormal basis, up to 10¹⁴ updates, which is a formula.
Networks: scikit-learn's digits read row by row, a tanh rnn, width × {50, 200, 1,000} training sequences × {0, 20%}
wrong training labels (Nakkiran et al. 2020) × 3 seeds, Adam, 4,000 updates of 25 sequences. The update is chosen by
validation loss. Weight norms, spectral radius and ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ are followed along training: over 8 rows
the horizon is censored.
Cost: 20 s of processor time for the polynomials, about six minutes for 108 networks in 18 programs (most of it
compiling), two more to verify gradients: four to five minutes on two cores.
Expect: the median test error of the polynomials falls to 0.12 at degree 5 (noise² is 0.09) and rises to 4,000 at degree
17, all of it variance, and to 3 million at degree 19, where coefficients equal points. It falls again, to 0.34 at
degree 31: a second descent that ends at three times the least of the first. Ridge at λ = 0.1 has no peak (at most 0.6)
but at degree 17 no λ does better than 0.21. Gradient descent at degree 17 passes through 0.15 after 6,000 updates in
powers, whose low degrees are learned first, but only 0.21 in the orthonormal basis, where they are not; from there both
are on the way to least squares.
With 1,000 sequences and right labels wider is better to the end (64 units tell 2% of the test digits wrong, 8 units
12%, 2 units 58%) and training for longer harms nobody. With 20% wrong labels 64 units tell 10% wrong where validation
stops them, after 800 updates, and 22% in the end, when they know the wrong labels by heart: 8 units, which cannot, end
at 14%. What grows meanwhile: the spectral radius from 1 to 1.6 at the stop and 2.3 in the end, ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖
from 0.4 to 1.5 and 2.7.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from analysis import capacity as analysis
from experiments import _polynomials as poly
from seqdyn import backend
from seqdyn.data.packaged import digits
from seqdyn.data.splits import balanced_order
from seqdyn.data.text import Examples
from seqdyn.fields import CellName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.script import Seeds, Sizes, fingerprint, launch_all, script, seeds, sized
from seqdyn.types import ConfigError

PARABOLA = (1, 2, 11)
"""Degrees of a model that is too small, right and too large for x² / 10."""
PARABOLA_POINTS = 12
"""Of its training set."""
TESTED = 100
"""Points of the test set that each draw is counted on."""
PENALTIES = 10.0 ** np.arange(-10, 2.25, 0.5)
"""λ of ridge."""
UPDATES = 10.0 ** np.arange(0, 14.25, 0.25)
"""Of gradient descent, at which its formula is read."""
DESCENDED = (3, 5, 9, 17)
"""Degrees that descend."""
COMPONENTS = 9
"""That of them whose fit is followed component by component."""


@dataclass(frozen=True, kw_only=True)
class Config(Sizes):
    """Of polynomials, the degree; of networks, width × training sequences × label noise × seeds."""

    points: int = 20
    """Of a polynomial's training set."""
    sigma: float = 0.3
    """Standard deviation of the noise on its y."""
    draws: int = 500
    """Training sets drawn for bias and variance."""
    degrees: tuple[int, ...] = (1, 3, 5, 7, 9, 11, 13, 15, 17)
    """Of the polynomials that are drawn; 1 has no bias."""
    beyond: int = 60
    """Largest degree of the sweep through the interpolation threshold."""
    cell: CellName = "rnn"
    """Recurrent cell."""
    hidden: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """Widths of the recurrent layer, a compiled program each."""
    training: tuple[int, ...] = (50, 200, 1000)
    """Numbers of training sequences, an experiment each; a smaller set is part of a larger one."""
    wrong: tuple[float, ...] = (0.0, 0.2)
    """Shares of the training labels that are replaced by another class, an experiment each."""
    seeds: Seeds = 3
    batch: int = 25
    lr: float = 3e-3
    updates: int = 4000
    """Of each network."""
    chunk: int = 200
    """Updates in one compiled call, and between two looks."""


SMOKE: dict[str, Any] = dict(
    draws=20, degrees=(1, 3, 17), beyond=24, hidden=(4,), training=(50,), seeds=2, updates=40, chunk=20
)
PAPER: dict[str, Any] = dict(seeds=10, updates=20_000, wrong=(0.0, 0.1, 0.2, 0.4), chunk=400)
PAPER |= dict(hidden=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512))


# --- polynomials ----------------------------------------------------------------------------------------------


def parabola(x: np.ndarray) -> np.ndarray:
    """A truth of degree 2."""
    return x**2 / 10


def quartiles(values: np.ndarray) -> np.ndarray:
    """Over draws: a mean would be the worst draw's."""
    return np.quantile(values, [0.25, 0.5, 0.75])


def single(c: Config) -> dict[str, np.ndarray]:
    """One training set of each truth and its fits on a dense grid, each degree."""
    rng, dense = np.random.default_rng(1), np.linspace(-poly.HALF, poly.HALF, 401)
    found: dict[str, np.ndarray] = {"grid": dense}
    for name, truth, degrees, basis in (
        ("sine", np.sin, c.degrees, poly.unbiased),
        ("parabola", parabola, PARABOLA, poly.legendre),
    ):
        one = poly.draw(rng, (c.points if truth is np.sin else PARABOLA_POINTS,), c.sigma, truth)
        models = [partial(basis, degree=d) for d in degrees]
        ws = [poly.fit(model(one.x), one.y) for model in models]
        of = list(zip(models, ws, strict=True))
        found |= {
            f"{name}_x": one.x,
            f"{name}_y": one.y,
            f"{name}_truth": truth(dense),
            f"{name}_degrees": np.asarray(degrees),
            f"{name}_fits": np.stack([model(dense) @ w for model, w in of]),
            f"{name}_train": np.asarray([poly.error(model, w, one) for model, w in of]),
            f"{name}_test": np.asarray([poly.expected(model, w, c.sigma, truth) for model, w in of]),
        }
    return found


def sweep(c: Config) -> dict[str, np.ndarray]:
    """[degree, draw] errors of least squares from degree 1 far beyond as many coefficients as points; [degree, λ] what
    ridge makes of them, its errors as quartiles over draws."""
    rng = np.random.default_rng(2)
    sample, new = poly.draw(rng, (c.draws, c.points), c.sigma), poly.draw(rng, (c.draws, TESTED), c.sigma)
    degrees = np.arange(1, c.beyond + 1)
    found: dict[str, list[Any]] = {
        name: []
        for name in ("train", "test", "counted", "norm", "parts", "ridge_parts", "ridge_test", "ridge_effective")
    }
    for degree in degrees:
        model = partial(poly.unbiased, degree=int(degree))
        of = poly.spectrum(model(sample.x), sample.y)
        w = poly.fit(model(sample.x), sample.y)
        found["train"].append(poly.error(model, w, sample))
        found["test"].append(poly.expected(model, w, c.sigma))
        found["counted"].append(poly.error(model, w, new))
        found["norm"].append(np.linalg.norm(w, axis=-1))
        found["parts"].append(poly.bias_variance(model, w))
        shares = [poly.ridge(of, penalty) for penalty in PENALTIES]
        ws = [of.learned(share) for share in shares]
        found["ridge_parts"].append([poly.bias_variance(model, w) for w in ws])
        found["ridge_test"].append([quartiles(poly.expected(model, w, c.sigma)) for w in ws])
        found["ridge_effective"].append([np.median(poly.effective(share)) for share in shares])
    return {"degrees": degrees, "penalties": PENALTIES} | {name: np.asarray(v) for name, v in found.items()}


def descent(c: Config) -> dict[str, np.ndarray]:
    """Along gradient descent, in each basis: [degree, update] quartiles of errors, effective coefficients, and
    [update, component] medians of what the fit of degree `COMPONENTS` has of each φ."""
    sample = poly.draw(np.random.default_rng(3), (c.draws, c.points), c.sigma)
    x, weights = poly.nodes()
    project = poly.legendre(x, COMPONENTS) * weights[:, None]
    found = {"updates": UPDATES, "descended": np.asarray(DESCENDED), "components_truth": np.sin(x) @ project}
    for name, basis in (("powers", poly.powers), ("legendre", poly.legendre)):
        train, test, effective = [], [], []
        for degree in DESCENDED:
            model = partial(basis, degree=degree)
            of = poly.spectrum(model(sample.x), sample.y)
            shares = [poly.descent(of, t) for t in UPDATES]
            ws = [of.learned(share) for share in shares]
            train.append([quartiles(poly.error(model, w, sample)) for w in ws])
            test.append([quartiles(poly.expected(model, w, c.sigma)) for w in ws])
            effective.append([np.median(poly.effective(share)) for share in shares])
            if degree == COMPONENTS:
                parts = [np.median(w @ model(x).T @ project, axis=0) for w in ws]
                found[f"{name}_components"] = np.asarray(parts)
        found |= {f"{name}_train": np.asarray(train), f"{name}_test": np.asarray(test)}
        found[f"{name}_effective"] = np.asarray(effective)
    return found


def polynomials(c: Config, path: Path) -> None:
    """Measures once and keeps it; a torn file is never there."""
    if not path.exists():
        arrays: dict[str, Any] = single(c) | sweep(c) | descent(c) | {"sigma": c.sigma, "points": c.points}
        torn = path.with_suffix(".partial.npz")
        np.savez(torn, **arrays)
        torn.replace(path)


# --- networks -------------------------------------------------------------------------------------------------


def fewer(whole: Examples, n: int, wrong: float) -> Examples:
    """The first n training sequences in a balanced order, a share of their labels replaced by another class."""
    if not 1 <= n <= len(whole.ys):
        raise ConfigError(f"training has {n}; the digits have 1 to {len(whole.ys)} training sequences.")
    rows, rng = balanced_order(whole.ys, seed=0)[:n], np.random.default_rng(4)
    classes = int(whole.ys.max()) + 1
    shift = np.where(rng.permutation(n) < round(wrong * n), rng.integers(1, classes, n), 0)
    return Examples(whole.xs[rows], whole.lengths[rows], ((whole.ys[rows] + shift) % classes).astype(np.int32))


def data(c: Config) -> dict[str, dict[str, Examples]]:
    """By experiment: the digits with few training sequences, validation and test whole and with the right labels."""
    whole = digits()
    return {
        analysis.part(n, wrong): whole | {"train": fewer(whole["train"], n, wrong)}
        for wrong in c.wrong
        for n in c.training
    }


def experiment(c: Config, name: str, examples: dict[str, Examples]) -> Experiment:
    """A spec a width."""
    _, steps, features = examples["train"].xs.shape
    specs = tuple(
        Spec(
            task="labelled",
            steps=steps,
            batch=c.batch,
            features=features,
            classes=int(examples["test"].ys.max()) + 1,
            cell=c.cell,
            hidden=(h,),
            evaluate_train=True,
            name=f"{c.cell}, {h}",
        )
        for h in c.hidden
    )
    polynomial = {k: getattr(c, k) for k in ("points", "sigma", "draws", "degrees", "beyond")}
    return Experiment(
        f"capacity_{name}",
        specs,
        grid(seeds=c.seeds, lr=c.lr),
        c.updates,
        c.chunk,
        probe_every=c.chunk,
        tile=len(seeds(c.seeds)),
        probes=("weights", "updates"),
        settings={"data": fingerprint(examples), "polynomials": polynomial},
    )


def check(c: Config) -> None:
    """Raises ConfigError for what neither a `Spec` nor a grid would say."""
    for name, value, right, rule in (
        ("points", c.points, c.points >= 2, "at least 2"),
        ("draws", c.draws, c.draws >= 2, "at least 2: a variance is over draws"),
        ("sigma", c.sigma, c.sigma >= 0, "at least 0"),
        ("degrees", c.degrees, c.degrees and min(c.degrees) >= 1, "degrees of at least 1"),
        (
            "beyond",
            c.beyond,
            1 <= c.beyond < poly.NODES,
            f"between 1 and {poly.NODES - 1}, which is integrated exactly",
        ),
        ("wrong", c.wrong, c.wrong and all(0 <= w <= 1 for w in c.wrong), "shares between 0 and 1"),
        ("training", c.training, len(c.training) > 0, "at least one number of training sequences"),
        ("batch", c.batch, c.batch <= min(c.training, default=0), f"at most training, {min(c.training, default=0)}"),
    ):
        if not right:
            raise ConfigError(f"{name} is {value}; it must be {rule}.")


def main(config: Config) -> None:
    """Trains (or goes on), measures the polynomials once, then draws."""
    config = sized(config, SMOKE, PAPER)
    check(config)
    backend.start()
    given = data(config)
    parts = launch_all({name: experiment(config, name, examples) for name, examples in given.items()}, config, given)
    out = next(iter(parts.values())).parent
    polynomials(config, out / "polynomials.npz")
    analysis.show(out, list(parts))


if __name__ == "__main__":
    script(Config, main, __doc__)
