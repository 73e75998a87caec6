"""How much can a model fit, and when is it too much? Polynomials, whose capacity is counted in coefficients and
whose every fit is a formula. Recurrent networks are asked the same in `capacity.py`.

y = sin x on [−5, 5], 20 points with noise of deviation 0.3, degrees 1 (without bias), 3, …, 17 by least squares;
x² / 10 with a model too small, right and too large; bias² + variance + noise² over 500 training sets, by degree and by
ridge λ, and by degree up to 60, beyond as many coefficients as points (Belkin, Hsu, Ma & Mandal 2019); gradient
descent in powers of x and in an orthonormal basis, up to 10¹⁴ updates, which is a formula.
Hypotheses: the error beyond the right degree is variance, is largest where coefficients equal points, and falls again
beyond; ridge takes the peak away; gradient descent in powers, whose low degrees are learned first, passes through a
better fit than in the orthonormal basis, where they are not. `--seed 1` draws other training sets.
Cost: half a minute of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

import dataclasses
import hashlib
import json
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from analysis import claims
from analysis import polynomials as analysis
from analysis.claims import Claim, Statistic, minus, of, prevails
from experiments import _measured
from experiments import _polynomials as poly
from seqdyn.runs.script import script, with_preset
from seqdyn.types import ConfigError

PARABOLA = (1, 2, 11)
"""Degrees of a model that is too small, right and too large for x² / 10."""
PARABOLA_POINTS = 12
"""Of its training set."""
LOUDEST = 1e6
"""Of sigma: beyond it nothing is left of sin x."""
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
class Config:
    """Training sets, and the degrees that are fitted to them."""

    points: int = 20
    """Of a training set."""
    sigma: float = 0.3
    """Standard deviation of the noise on y."""
    draws: int = 500
    """Training sets drawn for bias and variance."""
    degrees: tuple[int, ...] = (1, 3, 5, 7, 9, 11, 13, 15, 17)
    """Of the polynomials that are drawn; 1 has no bias."""
    beyond: int = 60
    """Largest degree of the sweep through the interpolation threshold."""
    seed: int = 0
    """Which training sets are drawn: another number, fresh ones."""
    out: Path | None = None
    """Directory of the arrays, the figures and the report; by default runs/polynomials-<digest of the settings>."""
    smoke: bool = False
    """Tiny sizes: seconds, along the same path."""


SMOKE: dict[str, Any] = dict(draws=20, degrees=(1, 3, 17), beyond=24)


def parabola(x: np.ndarray) -> np.ndarray:
    """A truth of degree 2."""
    return x**2 / 10


def quartiles(values: np.ndarray) -> np.ndarray:
    """Over draws: a mean would be the worst draw's."""
    return np.quantile(values, [0.25, 0.5, 0.75])


def single(c: Config) -> dict[str, np.ndarray]:
    """One training set of each truth and its fits on a dense grid, each degree."""
    rng, dense = np.random.default_rng((1, c.seed)), np.linspace(-poly.HALF, poly.HALF, 401)
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
    """[degree, draw] errors of least squares from degree 1 far beyond as many coefficients as points, and of ridge at
    `analysis.WEAK` and at the λ that is best of each draw; [degree, pair] bias² and variance of two draws; [degree, λ]
    what ridge makes of them, its errors as quartiles over draws."""
    rng = np.random.default_rng((2, c.seed))
    sample, new = poly.draw(rng, (c.draws, c.points), c.sigma), poly.draw(rng, (c.draws, TESTED), c.sigma)
    degrees = np.arange(1, c.beyond + 1)
    found: dict[str, list[Any]] = {
        name: []
        for name in ("train", "test", "counted", "norm", "parts", "ridge_parts", "ridge_test", "ridge_effective")
        + ("pairs", "ridge_weak", "ridge_best")
    }
    weak = int(np.argmin(np.abs(PENALTIES - analysis.WEAK)))
    for degree in degrees:
        model = partial(poly.unbiased, degree=int(degree))
        of = poly.spectrum(model(sample.x), sample.y)
        w = poly.fit(model(sample.x), sample.y)
        found["train"].append(poly.error(model, w, sample))
        found["test"].append(poly.expected(model, w, c.sigma))
        found["counted"].append(poly.error(model, w, new))
        found["norm"].append(np.linalg.norm(w, axis=-1))
        found["parts"].append(poly.bias_variance(model, w))
        found["pairs"].append(poly.of_pairs(model, w))
        shares = [poly.ridge(of, penalty) for penalty in PENALTIES]
        ws = [of.learned(share) for share in shares]
        found["ridge_parts"].append([poly.bias_variance(model, w) for w in ws])
        tests = np.asarray([poly.expected(model, w, c.sigma) for w in ws])
        found["ridge_weak"].append(tests[weak])
        found["ridge_best"].append(tests.min(0))
        found["ridge_test"].append([quartiles(of_draws) for of_draws in tests])
        found["ridge_effective"].append([np.median(poly.effective(share)) for share in shares])
    return {"degrees": degrees, "penalties": PENALTIES} | {name: np.asarray(v) for name, v in found.items()}


def descent(c: Config) -> dict[str, np.ndarray]:
    """Along gradient descent, in each basis: [degree, update] quartiles of errors, effective coefficients, [degree,
    draw] the least test error and the last, and [update, component] medians of what the fit of degree `COMPONENTS` has
    of each φ."""
    sample = poly.draw(np.random.default_rng((3, c.seed)), (c.draws, c.points), c.sigma)
    x, weights = poly.nodes()
    project = poly.legendre(x, COMPONENTS) * weights[:, None]
    found = {"updates": UPDATES, "descended": np.asarray(DESCENDED), "components_truth": np.sin(x) @ project}
    for name, basis in (("powers", poly.powers), ("legendre", poly.legendre)):
        train, test, effective, best, last = [], [], [], [], []
        for degree in DESCENDED:
            model = partial(basis, degree=degree)
            of = poly.spectrum(model(sample.x), sample.y)
            shares = [poly.descent(of, t) for t in UPDATES]
            ws = [of.learned(share) for share in shares]
            train.append([quartiles(poly.error(model, w, sample)) for w in ws])
            tests = np.asarray([poly.expected(model, w, c.sigma) for w in ws])
            test.append([quartiles(of_draws) for of_draws in tests])
            best.append(tests.min(0))
            last.append(tests[-1])
            effective.append([np.median(poly.effective(share)) for share in shares])
            if degree == COMPONENTS:
                parts = [np.median(w @ model(x).T @ project, axis=0) for w in ws]
                found[f"{name}_components"] = np.asarray(parts)
        found |= {f"{name}_train": np.asarray(train), f"{name}_test": np.asarray(test)}
        found[f"{name}_effective"] = np.asarray(effective)
        found |= {f"{name}_best": np.asarray(best), f"{name}_last": np.asarray(last)}
    return found


def measure(c: Config, path: Path) -> None:
    """Measures once and keeps it; a torn file is never there. Raises ConfigError if other settings were kept."""
    settings = json.dumps({k: v for k, v in dataclasses.asdict(c).items() if k not in ("out", "smoke")})
    if path.exists():
        try:
            with np.load(path) as found:
                there = str(found["settings"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{path} is damaged ({error!r:.80}); remove it, or choose another --out.") from None
        if there != settings:
            raise ConfigError(f"{path} was measured with other settings; choose another --out.")
        return
    _measured.make_folder(path.parent)
    arrays: dict[str, Any] = single(c) | sweep(c) | descent(c) | {"sigma": c.sigma, "points": c.points}
    torn = path.with_suffix(".partial.npz")
    np.savez(torn, **arrays, settings=settings)
    torn.replace(path)


def check(c: Config) -> None:
    """Raises ConfigError for what cannot be fitted."""
    for name, value, right, rule in (
        ("points", c.points, c.points >= 2, "at least 2"),
        ("draws", c.draws, c.draws >= 2, "at least 2: a variance is over draws"),
        ("seed", c.seed, c.seed >= 0, "at least 0"),
        ("sigma", c.sigma, 0 <= c.sigma <= LOUDEST, f"from 0 to {LOUDEST:g}"),
        (
            "degrees",
            c.degrees,
            c.degrees and all(1 <= d < poly.NODES for d in c.degrees),
            f"degrees between 1 and {poly.NODES - 1}",
        ),
        (
            "beyond",
            c.beyond,
            1 <= c.beyond < poly.NODES,
            f"between 1 and {poly.NODES - 1}, which is integrated exactly",
        ),
    ):
        if not right:
            raise ConfigError(f"{name} is {value}; it must be {rule}.")
    sizes = {"draws": c.draws, "points": c.points, "beyond": c.beyond}
    _measured.check_memory(sizes, c.draws * (c.points * (c.beyond + 1) + TESTED))


def at(column: str, degree: int) -> Statistic:
    """A column of `analysis.columns` at a degree, at the default number of points."""
    return of(column, degree=degree, points=20)


def decades(column: str, degree: int) -> Statistic:
    """log₁₀ of a column of `analysis.columns` at a degree, a value a draw."""

    def values(runs: Any) -> Any:
        return np.log10(at(column, degree)(runs))

    return values


def share(runs: Any) -> Any:
    """Bias² over variance of each two draws at degree 17."""
    return at("bias", 17)(runs) / at("variance", 17)(runs)


BELKIN = "Belkin et al. 2019"
CLAIMS = (
    Claim(
        "At degree 17 the test error is more than a hundred times that at degree 5",
        "difference",
        minus(decades("test", 17), decades("test", 5)),
        2.0,
    ),
    Claim(
        "It is variance: in the median pair of draws bias² is less than a quarter of that",
        "median",
        share,
        0.25,
        "within",
    ),
    Claim(
        "Beyond as many coefficients as points the error falls again: at degree 31 it is less than a thousandth of "
        "that at degree 19",
        "difference",
        minus(decades("test", 31), decades("test", 19)),
        -3.0,
        "below",
        BELKIN,
    ),
    Claim(
        "There it does not come down to that at degree 5",
        "proportion",
        prevails(at("test", 31), at("test", 5)),
        0.75,
    ),
    Claim(
        "Ridge at λ = 0.1 does not jump there: at degree 19 it errs less than 1.5 times as much as at degree 17",
        "difference",
        minus(decades("weak", 19), decades("weak", 17)),
        float(np.log10(1.5)),
        "below",
    ),
    Claim(
        "At degree 17 no λ of ridge, were it the best for the draw, does as well as degree 5 without",
        "proportion",
        prevails(at("best", 17), at("test", 5)),
        0.75,
    ),
    Claim(
        "At degree 17 gradient descent passes through a smaller error in powers than in the orthonormal basis",
        "proportion",
        prevails(at("legendre", 17), at("powers", 17)),
        0.75,
    ),
    Claim(
        "In powers it goes on to more than ten times that error",
        "difference",
        minus(decades("powers_last", 17), decades("powers", 17)),
        1.0,
    ),
)
"""Over training sets; λ and updates that are best for a draw are those of the expected test error, which nobody could
have chosen."""


def main(config: Config) -> None:
    """Measures once, then draws and tests the claims; their table is kept for `analysis.claims`."""
    c = with_preset(config, SMOKE)
    check(c)
    digest = hashlib.sha256(repr(dataclasses.replace(c, out=None)).encode()).hexdigest()[:8]
    out = c.out or Path("runs") / f"polynomials-{digest}"
    measure(c, out / analysis.ARRAYS)
    verdicts = claims.judged(CLAIMS, analysis.columns(analysis.read(out)))
    analysis.show(out, verdicts)
    claims.show(verdicts)
    claims.keep(out, claims.table(verdicts))


if __name__ == "__main__":
    script(Config, main, __doc__)
