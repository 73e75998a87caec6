"""What does each way of dropping do to the gradient through time, and what to the gap between training and validation?

Hypothesis: what is dropped at the inputs, the words and the outputs leaves the recurrence alone, and so the gradient's
reach; a new mask on h at each step shortens it (Zaremba, Sutskever & Vinyals 2014 drop no recurrent connection for that
reason); one mask for all steps (Gal & Ghahramani 2016), a mask on the candidate alone (Semeniuta, Severyn & Barth 2016)
and zoneout (Krueger et al. 2017), whose kept units hand the adjoint on as it is, do not. All narrow the gap; the mean
of several networks with dropout is better calibrated than one without.
Task: a GRU that reads 2,000 film reviews cut to their last 80 words (Maas et al. 2011) eight times and learns them by
heart. The look is chosen by the validation loss (of several rates, the rate, too), and the test split is read there.
Cost: 144 runs × 320 updates, a quarter of an hour of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import claims
from analysis import dropout as analysis
from analysis.claims import Claim, Statistic, minus, of
from seqdyn import backend
from seqdyn.data.datasets import imdb
from seqdyn.data.splits import beginning
from seqdyn.data.text import Examples
from seqdyn.fields import Dropout
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.numbers import Numbers
from seqdyn.runs.script import Claiming, Presets, Seeds, fingerprint, launch_all, replicated, script, with_preset
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(Presets, Claiming):
    """Kinds × rates × seeds, beside none at all; and some of the kinds judged by Monte Carlo."""

    data_dir: Path | None = None
    kinds: tuple[Dropout, ...] = (
        "words",
        "inputs",
        "outputs",
        "recurrent_step",
        "recurrent",
        "variational",
        "candidate",
        "zoneout",
    )
    """What is dropped; see `seqdyn.learn.dropout`."""
    rates: tuple[float, ...] = (0.5,)
    """With which probability."""
    sampled: tuple[Dropout, ...] = ("inputs", "variational", "zoneout")
    """The kinds that are judged by Monte Carlo, too."""
    samples: int = 10
    """Networks with dropout whose mean prediction that is."""
    reviews: int = 2000
    """Reviews to train on."""
    held_out: int = 1000
    """Reviews for validation; the test split has twice as many."""
    length: int = 80
    vocabulary: int = 5000
    """Ids of the words."""
    hidden: int = 32
    """Units of the GRU, and the width of the embedding."""
    batch: int = 50
    lr: float = 2e-3
    updates: int = 320
    """Updates of each run, 8 epochs."""
    looks: int = 8
    """Looks at the three splits while training; Monte Carlo looks at a quarter of them."""
    seeds: Seeds = 12
    tile: int = 6


KRUEGER, GAL = "Krueger et al. 2017", "Gal & Ghahramani 2016"
TINY: dict[str, Any] = dict(
    kinds=("zoneout",),
    rates=(0.25, 0.5),
    sampled=("zoneout",),
    samples=2,
    reviews=60,
    held_out=20,
    length=8,
    vocabulary=200,
    hidden=6,
    batch=20,
    updates=8,
    looks=4,
    seeds=2,
)
PAPER: dict[str, Any] = dict(
    rates=(0.1, 0.25, 0.5, 0.75),
    reviews=10_000,
    held_out=2500,
    length=250,
    hidden=64,
    updates=2400,
    samples=50,
)
"""Reviews of 250 words, five times as many."""


def read(c: Config) -> dict[str, Examples]:
    """The three splits, classes in proportion."""
    whole = imdb(c.data_dir, vocabulary=c.vocabulary, length=c.length, limit=max(c.reviews, 4 * c.held_out) * 5 // 4)
    sizes = {"train": c.reviews, "validation": c.held_out, "test": 2 * c.held_out}

    def some(examples: Examples, n: int) -> Examples:
        return examples.take(beginning(examples.ys, n))

    return {name: some(whole.splits[name], n) for name, n in sizes.items()}


def experiments(c: Config, data: dict[str, Examples]) -> dict[str, Experiment]:
    """'none'; every kind at every rate; some of them again, judged by Monte Carlo: the same training, bit for bit."""

    def spec(kind: Dropout, monte_carlo: int = 0) -> Spec:
        return Spec(
            task="labelled",
            steps=c.length,
            batch=c.batch,
            vocabulary=c.vocabulary,
            embedding=c.hidden,
            cell="gru",
            hidden=(c.hidden,),
            dropout=kind,
            evaluate_train=True,
            monte_carlo=monte_carlo,
            name=kind,
        )

    def experiment(name: str, specs: tuple[Spec, ...], numbers: Numbers, looks: int) -> Experiment:
        every = c.updates // c.looks
        if c.looks % 4 or c.updates % c.looks:
            raise ConfigError(
                f"updates is {c.updates} and looks is {c.looks}; updates must be a multiple of looks, looks of 4."
            )
        settings = {"data": fingerprint(data), "updates per epoch": c.reviews / c.batch}
        return Experiment(
            f"dropout_{name}",
            specs,
            numbers,
            updates=c.updates,
            chunk=every,
            probe_every=every * c.looks // looks,
            tile=c.tile,
            probes=(),
            settings=settings,
        )

    rates = grid(seeds=c.seeds, lr=c.lr, dropout=list(c.rates))
    parts = {
        "none": experiment("none", (spec("none"),), grid(seeds=c.seeds, lr=c.lr), c.looks),
        "kinds": experiment("kinds", tuple(map(spec, c.kinds)), rates, c.looks),
    }
    if c.sampled:
        sampled = tuple(spec(kind, c.samples) for kind in c.sampled)
        parts["sampled"] = experiment("sampled", sampled, rates, c.looks // 4)
    return parts


def _of(column: str, *kinds: str, part: str = "kinds") -> Statistic:
    """At the default rate."""
    return of(column, experiment=f"dropout_{part}", label=kinds, dropout=0.5)


def _changed(column: str, *kinds: str) -> Statistic:
    """Against no dropout, seed by seed, a mean over kinds."""
    return minus(_of(column, *kinds), of(column, experiment="dropout_none"))


SAMPLED = ("inputs", "variational", "zoneout")
CLAIMS = (
    Claim(
        "Dropping words, dropping inputs and zoneout narrow the gap between training and validation (mean over these)",
        "difference",
        _changed("gap", "words", "inputs", "zoneout"),
        0.0,
        "below",
    ),
    Claim("Zoneout raises the test accuracy", "difference", _changed("test", "zoneout"), 0.0, source=KRUEGER),
    Claim(
        "One mask for all steps of the recurrence shortens the trained horizon",
        "difference",
        _changed("horizon_end", "recurrent"),
        0.0,
        "below",
    ),
    Claim("It lowers the test accuracy", "difference", _changed("test", "recurrent"), 0.0, "below"),
    Claim(
        "A new mask at each step leaves the horizon at 70 of 80 lags or more",
        "median",
        _of("horizon_end", "recurrent_step"),
        70.0,
    ),
    Claim(
        "The mean prediction of ten draws of dropout has a smaller test loss than the same network with dropout "
        "switched off (mean over three kinds)",
        "difference",
        minus(_of("test_loss", *SAMPLED, part="sampled"), _of("test_loss", *SAMPLED)),
        0.0,
        "below",
        GAL,
    ),
)
"""At rate ½, at the default sizes."""


def once(config: Config) -> Mapping[str, str]:
    """Reads, trains (or goes on), then draws; the verdicts."""
    data = read(config)
    parts = experiments(config, data)
    done = launch_all(parts, config, {name: data for name in parts})
    return claims.report(CLAIMS, [*done.values()], lambda found: analysis.show(done, found), analysis.columns)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(config, TINY, PAPER)
    if "none" in config.kinds or not set(config.sampled) <= set(config.kinds):
        raise ConfigError(
            f"kinds is {config.kinds} and sampled is {config.sampled}; kinds has all of sampled, and not none."
        )
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
