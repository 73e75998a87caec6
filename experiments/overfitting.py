"""What helps a network that fits its training set to generalise, by how much, and what does it do to the gradient?

Hypothesis: with few examples everything that holds a network back helps and nothing beats more examples; early stopping
buys most of it for less than nothing; what keeps weights small shortens the gradient's reach, what drops units or
changes the data does not.
Task: a GRU on film reviews cut to their last 80 words (Maas et al. 2011) and on spoken digits as log-mel frames
(Free Spoken Digit Dataset), with 500 and 2,000 reviews, 300 and 1,000 recordings to train on. One method at a time is
switched on, and then all at once that helped on validation. Each method's number (λ, rate, strength) is the one of
those given with the best mean validation accuracy over seeds; the test split is read at what was chosen.
  nothing          trained to the end and judged there, as are all but two:
  early stopping   judged at the look with the least validation loss, stopped after `patience` looks without a better
  smaller model    an eighth of the units (and of the embedding)
  L1, L2           of every weight matrix: by the proximal step; by the decoupled decay of AdamW
  dropout          one mask for all steps of inputs, recurrence and outputs (Gal & Ghahramani 2016)
  augmentation     reviews: words deleted and swapped (Wei & Zou 2019); digits: pitch, speed, stretch, noise
  synthetic        digits only: as many sequences again, drawn from a VAE fitted to the training set
  together         what helped on validation, with early stopping
Cost: 500 runs and two VAEs, 27 minutes of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from analysis import claims
from analysis import overfitting as analysis
from analysis.claims import Claim, Statistic, minus, of
from experiments import _timing, _vae
from experiments._timing import Timed
from seqdyn import backend
from seqdyn.data import audio
from seqdyn.data.augment import BANK
from seqdyn.data.datasets import imdb
from seqdyn.data.splits import beginning
from seqdyn.data.text import Examples
from seqdyn.files import in_one_step
from seqdyn.learn.config import Experiment, Spec, grid, joined
from seqdyn.numbers import Numbers
from seqdyn.runs.run import default_out
from seqdyn.runs.script import Claiming, Presets, Seeds, fingerprint, launch_all, replicated, script, with_preset
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr

DataName = Literal["reviews", "digits"]
NUMBERS: dict[str, tuple[str, tuple[float, ...]]] = {
    "L1": ("l1_proximal", (0.01, 0.1)),
    "L2": ("weight_decay", (0.3, 3.0)),
    "dropout": ("dropout", (0.25, 0.5)),
    "augmentation": ("strength", (0.15, 0.5)),
}
"""Method → the number that switches it on, and the values tried; at 0 it is off, bit for bit."""
ONE = ("nothing", "early stopping", *NUMBERS)
"""The methods of one program: they differ in numbers alone."""
APART = {"smaller model": "_smaller", "synthetic": "_synthetic"}
"""How the experiment of a method ends that is no number."""
SMALLER = 8


@dataclass(frozen=True, kw_only=True)
class Config(Presets, Claiming):
    """Data × training examples × methods × seeds."""

    data: tuple[DataName, ...] = ("reviews", "digits")
    """Which data."""
    data_dir: Path | None = None
    audio_dir: Path | None = None
    """Folder of the recordings of the Free Spoken Digit Dataset, {digit}_{speaker}_{index}.wav."""
    reviews: tuple[int, ...] = (500, 2000)
    """Reviews to train on, each set part of the next."""
    recordings: tuple[int, ...] = (300, 1000)
    """Recordings to train on, at most 2,160: the 2,700 but for the fifth that validates."""
    review_updates: tuple[int, ...] = (180, 360)
    """Updates with each of `reviews`: 18 and 9 epochs."""
    recording_updates: tuple[int, ...] = (240, 480)
    """Updates with each of `recordings`: 40 and 24 epochs."""
    length: int = 80
    vocabulary: int = 5000
    """Ids of the words, those of the largest training set."""
    hidden: int = 48
    """Units of the GRU, and the width of the embedding of words."""
    batch: int = 50
    lr: float = 2e-3
    """AdamW's learning rate."""
    patience: float = 2
    """Looks without a better validation loss after which early stopping ends a run."""
    looks: int = 6
    """Looks at the three splits while training."""
    held_out: int = 1000
    """Reviews for validation; twice as many are for test."""
    variants: int = 3
    """Variants of each recording that augmentation picks from."""
    generator_updates: int = 1500
    """Of the VAE that draws synthetic recordings."""
    seeds: Seeds = 10
    tile: int = 3


TINY: dict[str, Any] = dict(
    reviews=(60,),
    recordings=(60,),
    review_updates=(8,),
    recording_updates=(8,),
    length=8,
    vocabulary=200,
    hidden=8,
    batch=20,
    looks=2,
    held_out=40,
    variants=1,
    generator_updates=10,
    seeds=2,
    tile=20,
)
PAPER: dict[str, Any] = dict(
    length=250,
    vocabulary=10_000,
    held_out=5000,
    looks=20,
    reviews=(500, 2000, 10_000),
    review_updates=(1000, 2000, 4000),
    recordings=(300, 1000, 2160),
    recording_updates=(240, 480, 600),
)
"""The full grid: reviews of 250 words, a third size of each."""


class Setting(NamedTuple):
    """One data set and size."""

    set: DataName
    examples: int
    """To train on."""
    data: dict[str, Any]
    spec: Spec
    updates: int

    @property
    def name(self) -> str:
        """'reviews500'."""
        return f"{self.set}{self.examples}"


def reviews(c: Config) -> list[Setting]:
    """The last words of reviews."""
    limit = min(25_000, max(math.ceil(max(c.reviews, default=0) / 0.8), 5 * c.held_out))
    text = imdb(c.data_dir, vocabulary=c.vocabulary, length=c.length, limit=limit, validation=0.2)
    held = {name: part(text.splits[name], n) for name, n in (("validation", c.held_out), ("test", 2 * c.held_out))}
    spec = usual(c, c.length, vocabulary=len(text.vocabulary), embedding=c.hidden, augment=("delete", "swap"))
    return settings("reviews", text.splits["train"], held, spec, c.reviews, c.review_updates)


def digits(c: Config) -> list[Setting]:
    """Recordings as frames, with the bank of their variants."""
    if c.audio_dir is None:
        raise ConfigError(
            "audio_dir is None; 'digits' in data needs the folder of recordings of the Free Spoken Digit Dataset "
            "(github.com/Jakobovski/free-spoken-digit-dataset)."
        )
    limit = 3 * max(c.recordings) if c.smoke else None
    found = audio.spoken_digits(c.audio_dir, variants=c.variants, limit=limit)
    bank, held = found[BANK], {name: found[name] for name in ("validation", "test")}
    steps, features = found["train"].xs.shape[1:]
    spec = usual(c, steps, features=features, classes=10, augment=(BANK,))
    made = settings("digits", found["train"], held, spec, c.recordings, c.recording_updates)
    return [s._replace(data=s.data | {BANK: bank.take(nested(found["train"], s.examples))}) for s in made]


def extended(data: dict[str, Any], updates: int) -> dict[str, Any]:
    """With as many sequences again, drawn from a VAE that has seen this training split alone."""
    drawn = _vae.augmented({name: data[name] for name in ("train", "validation")}, seed=0, updates=updates)
    k = data[BANK].lengths.shape[1]
    alike = Examples(np.repeat(drawn.xs[:, None], k, axis=1), np.repeat(drawn.lengths[:, None], k, axis=1), drawn.ys)
    more = {"train": drawn, BANK: alike}
    return data | {
        name: Examples(*(np.concatenate(pair) for pair in zip(data[name], new, strict=True)))
        for name, new in more.items()
    }


def nested(whole: Examples, n: int) -> np.ndarray:
    """Rows of the first n of the balanced order: each smaller set is part of every larger one."""
    if n > len(whole.ys):
        raise ConfigError(f"{n} training examples are asked for; there are only {len(whole.ys)}.")
    return beginning(whole.ys, n)


def part(whole: Examples, n: int) -> Examples:
    """Up to n of the examples, classes in proportion."""
    return whole.take(beginning(whole.ys, n))


def usual(c: Config, steps: int, **more: Any) -> Spec:
    """The network with every method of `ONE` in reach."""
    return Spec(
        task="labelled",
        steps=steps,
        batch=c.batch,
        cell="gru",
        hidden=(c.hidden,),
        optimizer="adamw",
        penalties=("l1_proximal",),
        penalised=(*Spec.penalised, "embedding") if "embedding" in more else Spec.penalised,
        dropout="variational",
        stop="loss",
        evaluate_train=True,
        name="gru",
        **more,
    )


def settings(
    name: DataName,
    train: Examples,
    held: dict[str, Examples],
    spec: Spec,
    sizes: tuple[int, ...],
    updates: tuple[int, ...],
) -> list[Setting]:
    """One for each size."""
    if len(sizes) != len(updates):
        raise ConfigError(f"{name} has {len(sizes)} sizes and {len(updates)} numbers of updates; give one for each.")
    return [
        Setting(name, n, {"train": train.take(nested(train, n))} | held, spec, steps)
        for n, steps in zip(sizes, updates, strict=True)
    ]


def points(c: Config) -> tuple[list[str], Numbers]:
    """(the method of each point, all points × seeds): one number of one method at a time."""
    methods, grids = [], []
    for method in ONE:
        name, values = NUMBERS.get(method, ("patience", (c.patience if method == "early stopping" else np.inf,)))
        one = grid(seeds=c.seeds, lr=c.lr, **{name: list(values)})
        methods += [method] * len(one)
        grids.append(one)
    return methods, joined(*grids)


def experiment(
    c: Config, setting: Setting, suffix: str, spec: Spec, methods: list[str], numbers: Numbers
) -> Experiment:
    """One setting with some methods."""
    every = setting.updates // c.looks
    if setting.updates % c.looks or every < 1:
        raise ConfigError(f"{setting.updates} updates of {setting.name} are no multiple of looks, {c.looks}.")
    noted = {"data": fingerprint(setting.data), "set": setting.set, "examples": setting.examples}
    noted |= {"methods": methods, "numbers": {method: name for method, (name, _) in NUMBERS.items()}}
    return Experiment(
        f"overfitting_{setting.name}{suffix}",
        (spec,),
        numbers,
        updates=setting.updates,
        chunk=every,
        probe_every=every,
        tile=c.tile,
        probes=(),
        settings=noted,
    )


def alone(c: Config, setting: Setting) -> dict[str, tuple[Experiment, dict[str, Any]]]:
    """Every method by itself: name of the part → (experiment, its data)."""
    methods, numbers = points(c)
    plain = grid(seeds=c.seeds, lr=c.lr)
    small = max(1, c.hidden // SMALLER)
    less = dataclasses.replace(setting.spec, hidden=(small,), embedding=small if setting.spec.embedding else 0)
    found = {
        setting.name: (experiment(c, setting, "", setting.spec, methods, numbers), setting.data),
        f"{setting.name}_smaller": (
            experiment(c, setting, APART["smaller model"], less, ["smaller model"] * len(plain), plain),
            setting.data,
        ),
    }
    if setting.set == "digits":
        more = setting._replace(data=extended(setting.data, c.generator_updates))
        one = experiment(c, more, APART["synthetic"], setting.spec, ["synthetic"] * len(plain), plain)
        found[f"{setting.name}_synthetic"] = one, more.data
    return found


def together(c: Config, setting: Setting, helped: Mapping[str, float]) -> Experiment:
    """What helped on validation alone, each at its number, and early stopping."""
    numbers = {NUMBERS[method][0]: value for method, value in helped.items()}
    numbers = grid(seeds=c.seeds, lr=c.lr, patience=c.patience, **numbers)
    return experiment(c, setting, "_together", setting.spec, ["together"] * len(numbers), numbers)


def timed(c: Config, settings: list[Setting]) -> dict[str, dict[str, float]]:
    """Data → method → ms of an update by a program that has that method and no other."""
    found: dict[str, dict[str, float]] = {}
    largest = {s.set: s for s in sorted(settings, key=lambda s: s.examples)}
    for setting in largest.values():
        off = Spec("labelled", optimizer="adam")
        bare: dict[str, Any] = {name: getattr(off, name) for name in ("optimizer", "penalties", "penalised", "dropout")}
        only = {
            "nothing": {},
            "smaller model": {"hidden": (max(1, c.hidden // SMALLER),)},
            "L1": {"penalties": setting.spec.penalties, "penalised": setting.spec.penalised},
            "L2": {"optimizer": "adamw", "penalised": setting.spec.penalised},
            "dropout": {"dropout": setting.spec.dropout},
            "augmentation": {"augment": setting.spec.augment},
        }
        cases = {
            method: dataclasses.replace(setting.spec, **(bare | {"stop": "none", "augment": ()} | changes))
            for method, changes in only.items()
        } | {"together": setting.spec}
        if c.smoke:
            cases = {"nothing": cases["nothing"]}
        updates = max(1, setting.updates // c.looks // 4)
        given = {method: Timed(spec.having(lr=c.lr), setting.data) for method, spec in cases.items()}
        found[setting.set] = _timing.milliseconds(given, updates, 1 if c.smoke else 3)
    return found


REVIEWS, DIGITS = ("reviews500", "reviews2000"), ("digits300", "digits1000")


def _of(column: str, method: str, *settings: str) -> Statistic:
    """A mean over settings."""
    return of(f"{column} {method}", experiment=tuple(f"overfitting_{one}{APART.get(method, '')}" for one in settings))


def gain(method: str, *settings: str) -> Statistic:
    """In test accuracy over nothing, mean over settings."""
    return minus(_of("test", method, *settings), _of("test", "nothing", *settings))


def best(setting: str) -> Statistic:
    """The test accuracy of the method that is best there, seed by seed."""

    def values(runs: "xr.Dataset") -> "xr.DataArray":
        import xarray as xr

        found = [_of("test", method, setting)(runs) for method in (*ONE, "smaller model")]
        return xr.concat(found, "method", join="inner").max("method")

    return values


CLAIMS = (
    Claim(
        "Four times as many reviews are worth more than any single method with 500, be it the best of each seed",
        "difference",
        minus(_of("test", "nothing", REVIEWS[1]), best(REVIEWS[0])),
        0.0,
    ),
    Claim(
        "Changed copies of 2,000 reviews help",
        "difference",
        gain("augmentation", REVIEWS[1]),
        0.0,
    ),
    Claim(
        "Stopping 500 reviews at the least validation loss costs test accuracy",
        "difference",
        gain("early stopping", REVIEWS[0]),
        0.0,
        "below",
    ),
    Claim(
        "An eighth of the units, and of the embedding, is worse than all of them (mean of four training sets)",
        "difference",
        gain("smaller model", *REVIEWS, *DIGITS),
        0.0,
        "below",
    ),
    Claim(
        "One mask of dropout for all steps harms where examples are fewest (mean of both data sets)",
        "difference",
        gain("dropout", REVIEWS[0], DIGITS[0]),
        0.0,
        "below",
    ),
    Claim(
        "Synthetic recordings harm (mean of 300 and 1,000)",
        "difference",
        gain("synthetic", *DIGITS),
        0.0,
        "below",
    ),
    Claim(
        "The decoupled decay of L2 moves the test accuracy by less than two points (mean of four training sets)",
        "difference",
        gain("L2", *REVIEWS, *DIGITS),
        2.0,
        "within",
    ),
    Claim(
        "An eighth of the units shortens the reach of the gradient in recordings (mean of 300 and 1,000)",
        "difference",
        minus(_of("reach", "smaller model", *DIGITS), _of("reach", "nothing", *DIGITS)),
        0.0,
        "below",
    ),
)
"""At the default sizes; chosen when three of the ten seeds had been seen."""


def once(config: Config) -> Mapping[str, str]:
    """Trains each method alone, then those that helped together; draws; the verdicts."""
    found = [s for name in config.data for s in {"reviews": reviews, "digits": digits}[name](config)]
    first = {name: pair for setting in found for name, pair in alone(config, setting).items()}
    parts = {name: of for name, (of, _) in first.items()}
    data = {name: of for name, (_, of) in first.items()}
    config = dataclasses.replace(config, out=config.out or default_out(*parts.values()))
    out = launch_all(parts, config, data)
    helped = {f"{s.name}_together": together(config, s, analysis.helped(out[s.name])) for s in found}
    out |= launch_all(helped, config, {f"{s.name}_together": s.data for s in found})
    assert config.out is not None
    place, timing = config.out, config.out / analysis.TIMING
    if not timing.exists():
        milliseconds = json.dumps(timed(config, found)) + "\n"
        with in_one_step(timing) as part:
            part.write_text(milliseconds, encoding="utf-8")
    return claims.report(CLAIMS, [*out.values()], lambda verdicts: analysis.show(place, verdicts), analysis.columns)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(config, TINY, PAPER)
    if not config.data or not set(config.data) <= {"reviews", "digits"}:
        raise ConfigError(f"data is {config.data}; name reviews, digits or both.")
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
