"""Can a recurrent network draw sequences that another can learn from, and where does its gradient die?

Two generators, given the class, learn handwritten digits (8 rows of 8 pixels, `packaged.digits`) and spoken vowels
(7 to 29 frames of 12 coefficients, 216 of them to train on, `packaged.japanese_vowels`):
  vae    `_vae`: the ELBO, with and without KL annealing, x_{t−1} given to the decoder always, half of the time or
         never (Bowman et al. 2016); the update is chosen on validation, and so is the setting that draws the samples
  gan    `_gan`: RCGAN (Esteban, Hyland & Rätsch 2017) with Wasserstein's distance and gradient penalty (Gulrajani et
         al. 2017), which is differentiated through the hand-written backward pass
Both are networks that are no stack: `seqdyn.run` trains, records and resumes them, in generators/, as it does the
judges.
Judged by a GRU of 32 units: trained on synthetic, tested on real (TSTR) and the reverse (TRTS); trained on n real and n
synthetic sequences or on the real alone, the generator having seen those n only; and, of real against synthetic, the
discriminative score |accuracy − ½| (Yoon, Jarrett & van der Schaar 2019). Every training set is repeated to the same
length and all classifiers train for as long; nothing is chosen. The bounds of Burda et al. 2016 hold the ELBO against
an importance-sampled likelihood.
Cost: 30 minutes of processor time; the settings of the VAE are dealt over the cores, the rest takes one.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from analysis import claims, generated
from analysis import synthetic as analysis
from analysis.claims import Claim, Statistic, minus, of
from experiments import _generative, _generators
from experiments._generators import Made, Parts, Source, divisor, draw, launched, seen_by
from seqdyn import backend
from seqdyn.data.tasks import TASKS
from seqdyn.data.text import Examples
from seqdyn.files import in_one_step
from seqdyn.learn import model
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.manifest import experiment as read_experiment
from seqdyn.runs.restore import restore
from seqdyn.runs.script import Claiming, fingerprint, replicated, script, seeds, with_preset
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(_generators.Config, Claiming):
    """Generators, and how they are judged."""

    share: float = 1.0
    """Synthetic sequences for each real one, where they are mixed."""
    judges: int = 1
    """Classifiers, with seeds of their own, for each judgement."""
    judge_updates: int = 500


MOST = 1000
"""Synthetic sequences for each real one."""
SMOKE: dict[str, Any] = dict(sizes=(20, 40), seeds=1, hidden=6, latent=2, vae_updates=20, gan_updates=4)


def both(*parts: Examples) -> Examples:
    """One after the other."""
    return Examples(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


def is_real(real: Examples, synthetic: Examples) -> Examples:
    """Labelled 1 and 0 instead of by their classes."""
    ys = np.concatenate([np.ones(len(real.ys), np.int32), np.zeros(len(synthetic.ys), np.int32)])
    return both(real, synthetic)._replace(ys=ys)


def judgements(c: Config, name: str, s: Source, made: Made) -> Parts:
    """Every classifier of a data set."""
    largest, found = s.sizes[-1], {}
    total = round(largest * (1 + c.share))

    def add(what: str, which: str, size: int, seed: int, train: Examples, **held: Examples) -> None:
        data = {"train": _generative.repeated(train, total)} | {k: s.data[k] for k in ("validation", "test")} | held
        spec = Spec(
            task="labelled",
            steps=s.kind.steps,
            batch=32,
            features=s.kind.features,
            classes=2 if what == "discriminative" else s.kind.classes,
            pad=s.kind.pad,
            cell="gru",
            hidden=(8 if c.smoke else 32,),
        )
        facts = {"source": name, "what": what, "model": which, "size": size, "seed": seed}
        e = Experiment(
            f"synthetic_{what}",
            (spec,),
            grid(seeds=c.judges, lr=3e-3, clip=1.0),
            c.judge_updates,
            divisor(c.judge_updates, 50),
            probe_every=c.judge_updates,
            tile=1,
            probes=(),
            settings=facts | {"data": fingerprint(data)},
        )
        found[f"{name}_{what}_{which}_{size}_{seed}"] = e, data

    for seed in seeds(c.seeds):
        for size in s.sizes:
            add("mixed", "real", size, seed, seen_by(s, size, seed)[0])
            for which in ("vae", "gan"):
                drawer = made.drawers[name, which, size, seed]
                add("mixed", which, size, seed, both(drawer.seen, draw(s, drawer, round(c.share * size), seed)))
        for which in ("vae", "gan"):
            drawer = made.drawers[name, which, largest, seed]
            fake = draw(s, drawer, largest, seed)
            held = {
                split: is_real(s.data[split], draw(s, drawer, len(s.data[split].ys), 100 + seed + i))
                for i, split in ((100, "validation"), (200, "test"))
            }
            add("tstr", which, largest, seed, fake)
            add("discriminative", which, largest, seed, is_real(drawer.seen, fake), **held)
    return found


@cache
def _accuracy(spec: Spec) -> Any:
    def accuracy(spec: Spec, params: Any, examples: Examples) -> Any:
        n = examples.ys.shape[0]
        batch = TASKS["labelled"](spec).batch({"test": examples}, "test", (np.arange(n), np.ones(n, np.float32)))
        return model.forward(spec, params, batch).accuracy

    return backend.compiled(accuracy)


def trts(c: Config, name: str, s: Source, made: Made, out: Path) -> dict[str, list[float]]:
    """Per generator, over seeds: the accuracy on its samples of what was trained on the real sequences."""
    found: dict[str, list[float]] = {}
    for seed in seeds(c.seeds):
        part = out / "judges" / f"{name}_mixed_real_{s.sizes[-1]}_{seed}"
        e = read_experiment(part)
        for which in ("vae", "gan"):
            drawer = made.drawers[name, which, s.sizes[-1], seed]
            fake = draw(s, drawer, len(s.data["test"].ys), 300 + seed)
            got = [_accuracy(e.specs[0])(e.runs[0].at(i).arrays(), restore(part, i), fake) for i in range(c.judges)]
            found.setdefault(which, []).append(float(np.mean(got)))
    return found


def shown(s: Source, made: Made, name: str) -> dict[str, np.ndarray]:
    """Real sequences and samples to look at: four of each class that are drawn first."""
    seed, largest = min(made_for for *_, made_for in made.drawers), s.sizes[-1]
    train = made.drawers[name, "vae", largest, seed].seen
    rows = np.concatenate([np.flatnonzero(train.ys == y)[:4] for y in range(s.kind.classes)])
    sets = {"real": train.take(rows)}
    for which in ("vae", "gan"):
        found = draw(s, made.drawers[name, which, largest, seed], 4 * s.kind.classes, seed)
        order = np.argsort(found.ys, kind="stable")
        sets[which] = found.take(order)
    return {f"{name}/{k}/{part}": getattr(v, part) for k, v in sets.items() for part in Examples._fields}


DATA = ("vowels", "digits")
BOTH = ("vae", "gan")


def _of(what: str, of_what: Any, data: Any = DATA, size: Any = 0) -> Statistic:
    """A mean over what is said of data sets, generators or networks, and sizes; size 0 is the largest."""
    return of("value", what=what, of=of_what, data=data, size=size)


def gain(data: str, size: int) -> Statistic:
    """In test accuracy, of real and synthetic sequences over the real alone, mean of both generators."""
    return minus(_of("mixed", BOTH, data, size), _of("mixed", "real", data, size))


def mixed(runs: Any) -> Any:
    """`gain`, a mean over the sizes of both data sets."""
    return sum(gain(data, size)(runs) for data, size in SIZES) / len(SIZES)


SIZES = (("vowels", 50), ("vowels", 0), ("digits", 50), ("digits", 200), ("digits", 0))
ALWAYS, HALF = generated.setting(1.0, False), generated.setting(0.5, False)
ANNEALED = generated.setting(1.0, True)
CLAIMS = (
    Claim(
        "What has learned from synthetic sequences alone is worse on real ones than what has learned from as many real "
        "ones (mean of both generators and data sets)",
        "difference",
        minus(_of("tstr", BOTH), _of("mixed", "real")),
        0.0,
        "below",
    ),
    Claim(
        "What has learned from real digits is right in more samples of the GAN than of the VAE",
        "difference",
        minus(_of("trts", "gan", "digits"), _of("trts", "vae", "digits")),
        0.0,
    ),
    Claim(
        "A judge tells synthetic from real: its accuracy is more than ten points from ½ (mean of both generators and "
        "data sets)",
        "median",
        _of("told", BOTH),
        0.1,
    ),
    Claim(
        "Beside real sequences, as many synthetic ones do not raise the test accuracy by a point (mean of five sizes "
        "and both generators)",
        "median",
        mixed,
        0.01,
        "below",
    ),
    Claim(
        "Annealing raises the KL divergence of the VAE's posterior of vowels",
        "difference",
        minus(_of("kl", ANNEALED, "vowels"), _of("kl", ALWAYS, "vowels")),
        0.0,
    ),
    Claim(
        "A decoder of vowels that is given x_{t−1} half of the time has a lower ELBO than one that always is",
        "difference",
        minus(_of("elbo", HALF, "vowels"), _of("elbo", ALWAYS, "vowels")),
        0.0,
        "below",
    ),
    Claim(
        "Before training less than a third of the encoder's gradient at lag 1 reaches its first steps (mean of the "
        "logarithms of both data sets)",
        "median",
        _of("fall", "encoder"),
        -0.477,
        "below",
    ),
    Claim(
        "Training lets more of the encoder's gradient through to its first steps (mean of the logarithms of both)",
        "difference",
        minus(_of("fall_trained", "encoder"), _of("fall", "encoder")),
        0.0,
    ),
    Claim(
        "The gradient of trained decoders, critics and generators grows towards the first steps (mean of the "
        "logarithms)",
        "median",
        _of("fall_trained", ("decoder", "critic", "generator")),
        0.0,
    ),
)
"""Of as many synthetic sequences as real ones; chosen when three of the ten seeds had been seen."""


def once(c: Config) -> Mapping[str, str]:
    """Reads, trains generators and judges (or goes on), draws; the verdicts."""
    sources = {name: _generators.source(c, name) for name in c.data}
    out = c.out or Path("runs") / f"synthetic-{digest(c, sources)}"
    made = _generators.generators(c, sources, out / "generators")
    for name, s in sources.items():
        made.samples.update(shown(s, made, name))
        made.facts[name] |= {"sizes": s.sizes, "seeds": seeds(c.seeds), "classes": s.kind.classes}
    parts = {k: v for name, s in sources.items() for k, v in judgements(c, name, s, made).items()}
    launched(c, parts, out / "judges")
    for name, s in sources.items():
        made.facts[name]["trts"] = trts(c, name, s, made, out)
    write(out, made)
    verdicts = claims.judged(CLAIMS if c.share == 1 else (), analysis.columns(generated.read(out)))
    claims.keep(out, claims.table(verdicts))
    analysis.show(out)
    claims.show(verdicts)
    return {v.claim.statement: v.verdict for v in verdicts}


def main(config: Config) -> None:
    """As often as was asked for."""
    c = with_preset(config, SMOKE | dict(judge_updates=20))
    if min(seeds(c.seeds), default=-1) < 0:
        raise ConfigError(f"seeds is {c.seeds}; it must be at least one, or a list of whole numbers of at least 0.")
    for name in ("hidden", "latent", "vae_updates", "gan_updates", "judges", "judge_updates"):
        if getattr(c, name) < 1:
            raise ConfigError(f"{name} is {getattr(c, name)}; it must be a whole number of at least 1.")
    if not 0 < c.share <= MOST or not c.data:
        right = f"share must be above 0, at most {MOST}, and data not empty"
        raise ConfigError(f"share is {c.share}, data is {c.data}; {right}.")
    backend.start()
    replicated(c, once)


def digest(c: Config, sources: dict[str, Source]) -> str:
    """Of all that decides the results."""
    kept = {k: v for k, v in dataclasses.asdict(c).items() if k not in {f.name for f in dataclasses.fields(Claiming)}}
    told = json.dumps([kept, c.smoke, {name: fingerprint(s.data) for name, s in sources.items()}], default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def write(out: Path, made: Made) -> None:
    """What the analysis reads beside the records of the judges, each file in one step."""
    with in_one_step(out / generated.ARRAYS) as part, open(part, "wb") as file:
        np.savez_compressed(file, **made.samples)  # type: ignore[arg-type]
    with in_one_step(out / generated.FACTS) as part:
        part.write_text(json.dumps(made.facts), encoding="utf-8")


if __name__ == "__main__":
    script(Config, main, __doc__)
