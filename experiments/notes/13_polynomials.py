"""Notes: capacity. Polynomials of degree 1, 3, 5, 9 and 17 on 20 noisy points of sin x. See that the training error
only falls. The test error falls, too, and then explodes: a model too small, one right, one too large.

    python experiments/notes/13_polynomials.py

500 training sets, bias and variance, ridge, more coefficients than points: `experiments/polynomials.py`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from analysis import style
from experiments import _polynomials as poly
from seqdyn.runs.script import script

DEGREES = (1, 3, 5, 9, 17)
NOISE = 0.3


@dataclass(frozen=True)
class Config:
    """Where it is drawn."""

    out: Path = Path("runs/notes")


def main(config: Config) -> None:
    """Fits each degree by least squares, prints a line for each, draws three."""
    train, test = (poly.draw(np.random.default_rng(seed), (n,), NOISE) for seed, n in ((0, 20), (1, 1000)))
    x, fits = np.linspace(-poly.HALF, poly.HALF, 401), {}
    print(
        f"20 points of sin x with noise of deviation {NOISE}: its square, {NOISE**2:.2f}, is the least error there is"
    )
    for degree in DEGREES:
        model = partial(poly.legendre, degree=degree)
        w = poly.fit(model(train.x), train.y)
        fits[degree] = model(x) @ w
        errors = [float(poly.error(model, w, sample)) for sample in (train, test)]
        print(
            f"  degree {degree:2}: {len(w):2} coefficients, training error {errors[0]:.3f}, test error {errors[1]:.3g}"
        )

    with style.look():
        fig, axes = style.panels(1, 3, 1.7, sharey=True)
        for ax, degree, name in zip(axes[0], (1, 5, 17), ("too small", "right", "too large"), strict=True):
            ax.plot(x, np.sin(x), color="0.55", linestyle=style.DASHES[1], label="sin x")
            ax.plot(x, fits[degree], color=style.BLUE, label="polynomial")
            ax.plot(train.x, train.y, "o", color="black", markersize=2.5, label="training points")
            ax.set(title=f"degree {degree}: {name}", xlabel="x", ylim=(-2.5, 2.5))
        axes[0, 0].set_ylabel("y")
        style.legend(fig, style.drawn(axes))
        print(style.save(fig, config.out / "polynomials"))


if __name__ == "__main__":
    script(Config, main, __doc__)
