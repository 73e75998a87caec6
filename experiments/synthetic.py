"""Can a recurrent network draw sequences that another can learn from, and where does its gradient die?

Two generators, given the class, learn handwritten digits (8 rows of 8 pixels, `packaged.digits`) and spoken vowels
(7 to 29 frames of 12 coefficients, 216 of them to train on, `packaged.japanese_vowels`):
  vae    `_vae`: the ELBO, with and without KL annealing, x_{t−1} given to the decoder always, half of the time or
         never (Bowman et al. 2016); the update is chosen on validation, and so is the setting that draws the samples
  gan    `_gan`: RCGAN (Esteban, Hyland & Rätsch 2017) with Wasserstein's distance and gradient penalty (Gulrajani et
         al. 2017), which is differentiated through the hand-written backward pass
Judged by a GRU of 32 units: trained on synthetic, tested on real (TSTR) and the reverse (TRTS); trained on n real and n
synthetic sequences or on the real alone, the generator having seen those n only; and, of real against synthetic, the
discriminative score |accuracy − ½| (Yoon, Jarrett & van der Schaar 2019). Every training set is repeated to the same
length and all classifiers train for as long; nothing is chosen. The bounds of Burda et al. 2016 hold the ELBO against
an importance-sampled likelihood.
Cost: ten minutes of processor time, five to six on two idle cores.
Expect (means over three seeds; ± is a 95% interval):
  posterior    it never collapses for good. On vowels, with x_{t−1} always given, KL falls to 1.3 nats near update 250
               and recovers to 7.1; annealed it stays above 4.2 and ends at 9.8. Both cures raise KL, and
               neither the likelihood beyond its interval: with x_{t−1} withheld half of the time the ELBO is −141
               instead of −75 nats (vowels), −112 instead of −108 (digits), without it −214 and −114. L_1000 is 7 to 28
               nats above the ELBO
  scores       real on real 0.964 (vowels), 0.962 (digits); TSTR of the VAE 0.90 and 0.82, of the GAN 0.94 and 0.83;
               TRTS of the VAE 0.81 and 0.55, of the GAN 0.97 and 0.90; both are told from real, |accuracy − ½| from
               0.28 to 0.37. The setting with the best ELBO is no good sampler of digits: fed its own rows it drifts
  mixed        synthetic sequences help nowhere: of ten comparisons with the real alone, at 50, 200 and 1,000, no
               difference can be told from 0, and eight are negative
  gradients    only the encoder's dies, and only before training: read out at its end, what travels falls to 0.008
               (vowels) and 0.1 (digits) of its first value, trained to 0.6 and 0.8. The others are told of an error at
               every step, and what travels grows towards the first: once trained by 1.3 to 3 times in the decoder, 4
               to 8 in the critic, 8 to 15 in the generator
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from analysis import synthetic as analysis
from experiments import _gan, _generative, _vae
from experiments._generative import Kind, Scale, Trained
from seqdyn import backend
from seqdyn.data import packaged
from seqdyn.data.tasks import TASKS
from seqdyn.data.text import Examples
from seqdyn.learn import model
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.lock import gate
from seqdyn.runs.manifest import experiment as read_experiment
from seqdyn.runs.run import restore
from seqdyn.runs.script import Options, fingerprint, launch_all, script
from seqdyn.types import ConfigError

Name = Literal["digits", "vowels"]
HISTORY, ANNEALED = (0.0, 0.5, 1.0), (False, True)
"""The settings of the VAE: how often the decoder is given x_{t−1}, and whether the weight of KL rises."""
SAMPLES = (1, 10, 100, 1000)
"""k of the bounds L_k."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Sizes."""

    data: tuple[Name, ...] = ("vowels", "digits")
    """What is learnt."""
    sizes: tuple[int, ...] = (50, 200, 1000)
    """Real training sequences; those that a data set has. The largest is used wherever one is enough."""
    seeds: int = 3
    """Of generators, of the order in which examples are taken, and of samples."""
    hidden: int = 48
    """Width of the generators' recurrent layers."""
    latent: int = 8
    """Latent numbers of the VAE, and random numbers a step of the GAN."""
    vae_updates: int = 1200
    gan_updates: int = 600
    """Of the generator; the critic has three for each."""
    share: float = 1.0
    """Synthetic sequences for each real one, where they are mixed."""
    judges: int = 1
    """Classifiers, with seeds of their own, for each judgement."""
    judge_updates: int = 500


SMOKE: dict[str, Any] = dict(sizes=(20, 40), seeds=1, hidden=6, latent=2, vae_updates=20, gan_updates=4)


class Source(NamedTuple):
    """A data set and what it means to the generators."""

    kind: Kind
    data: dict[str, Examples]
    sizes: tuple[int, ...]


Key = tuple[str, str, int, int]
"""(data set, 'vae' or 'gan', size, seed): a generator."""


class Drawer(NamedTuple):
    """A trained generator that can draw."""

    trained: Trained
    scale: Scale
    train: Examples
    history: float = 0.0


def source(c: Config, name: Name) -> Source:
    """Raises ConfigError if no size fits."""
    data = packaged.digits() if name == "digits" else packaged.japanese_vowels()
    n, steps, d = data["train"].xs.shape
    sizes = tuple(sorted(s for s in c.sizes if s <= n))
    if not sizes or sizes[0] < 32:
        if not (c.smoke and sizes):
            raise ConfigError(f"sizes is {c.sizes}; give at least one from 32 to {n}, the training split of {name}.")
    classes = int(data["train"].ys.max()) + 1
    return Source(Kind(steps, d, classes, 16 if name == "digits" else 0), data, sizes)


def vae_job(c: Config, s: Source, size: int, seed: int, history: float, annealed: bool) -> Any:
    """(job, scale) of a VAE."""
    numbers = _vae.Numbers(seed, size, c.vae_updates / 2 if annealed else 0.0, history)
    train = _generative.ordered(s.data["train"], seed)
    chunk = max(n for n in range(1, 26) if c.vae_updates % n == 0)
    widths = _vae.Size(c.hidden, c.latent)
    return _vae.job(s.kind, widths, numbers, train, s.data["validation"], c.vae_updates, chunk)


def gan_job(c: Config, s: Source, size: int, seed: int) -> Any:
    """(job, scale) of a GAN."""
    train = _generative.ordered(s.data["train"], seed)
    chunk = max(n for n in range(1, 11) if c.gan_updates % n == 0)
    return _gan.job(s.kind, gan_size(c), _gan.Numbers(seed, size), train, c.gan_updates, chunk)


def gan_size(c: Config) -> _gan.Size:
    """Three updates of the critic for each of the generator."""
    return _gan.Size(c.hidden, c.latent, critic=3)


def draw(c: Config, s: Source, drawer: Drawer, which: str, size: int, n: int, seed: int) -> Examples:
    """n synthetic sequences, with classes and lengths of the first `size` real ones."""
    seen = drawer.train.take(slice(size))
    if which == "gan":
        return _gan.synthesise(s.kind, gan_size(c), drawer.trained, drawer.scale, seen, n, seed)
    widths = _vae.Size(c.hidden, c.latent)
    return _vae.synthesise(s.kind, widths, drawer.trained, drawer.scale, drawer.history > 0, seen, n, seed)


# --- the generators -------------------------------------------------------------------------------------------


class Made(NamedTuple):
    """All generators, and what is known of them."""

    drawers: dict[Key, Drawer]
    arrays: dict[str, np.ndarray]
    """Records, by 'data set/setting/seed/name'."""
    facts: dict[str, Any]
    """Per data set: the settings of the VAE with their bounds, and which was chosen."""


def generators(c: Config, sources: dict[str, Source], folder: Path) -> Made:
    """Trains all of them (or goes on): first every setting of the VAE at the largest size and the GANs, then, at the
    other sizes, the setting with the best ELBO on validation."""
    jobs: dict[Any, Any] = {}
    for name, s in sources.items():
        for seed in range(c.seeds):
            jobs |= {(name, "gan", size, seed): gan_job(c, s, size, seed) for size in s.sizes}
            for h in HISTORY:
                jobs |= {(name, (h, a), s.sizes[-1], seed): vae_job(c, s, s.sizes[-1], seed, h, a) for a in ANNEALED}
    done = trained(c, jobs, folder)
    chosen = {name: best(done, name) for name in sources}
    rest = {
        (name, chosen[name], size, seed): vae_job(c, s, size, seed, *chosen[name])
        for name, s in sources.items()
        for size in s.sizes[:-1]
        for seed in range(c.seeds)
    }
    jobs, done = jobs | rest, done | trained(c, rest, folder)

    drawers: dict[Key, Drawer] = {}
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {name: {"chosen": analysis.setting(*chosen[name]), "settings": {}} for name in sources}
    for (name, which, size, seed), found in done.items():
        s, scale = sources[name], jobs[name, which, size, seed][1]
        train = _generative.ordered(s.data["train"], seed)
        if which == "gan" or which == chosen[name]:
            kind = "gan" if which == "gan" else "vae"
            history = 0.0 if which == "gan" else which[0]
            drawers[name, kind, size, seed] = Drawer(found, scale, train, history)
        if size < s.sizes[-1]:
            continue
        label = "gan" if which == "gan" else analysis.setting(*which)
        arrays |= {f"{name}/{label}/{seed}/{key}": values for key, values in found.records.items()}
        if which != "gan":
            widths, limit = _vae.Size(c.hidden, c.latent), 8 if c.smoke else 32
            judged = (s.kind, widths, found.state.best, scale, s.data["test"], which[0] > 0, SAMPLES, limit)
            facts[name]["settings"].setdefault(label, []).append(_vae.judge(*judged)._asdict())
    return Made(drawers, arrays, facts)


def trained(c: Config, jobs: dict[Any, Any], folder: Path) -> dict[Any, Trained]:
    """The last state of each job; of several processes that want it, one trains and the others then find it."""
    folder.mkdir(parents=True, exist_ok=True)
    with gate(folder):
        return _generative.train_all({key: job for key, (job, _) in jobs.items()}, folder, c.checkpoint_seconds)


def best(done: dict[Any, Trained], name: str) -> Any:
    """The setting of a data set's VAE with the best ELBO on validation, mean over seeds."""
    found: dict[Any, list[float]] = {}
    for (of, which, _, _), one in done.items():
        if of == name and which != "gan":
            found.setdefault(which, []).append(float(one.state.elbo))
    return max(found, key=lambda which: np.mean(found[which]))


# --- the judges -----------------------------------------------------------------------------------------------


def both(*parts: Examples) -> Examples:
    """One after the other."""
    return Examples(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


def repeated(examples: Examples, n: int) -> Examples:
    """Again and again, up to n: every classifier's training set has one shape, and so one program."""
    return Examples(*(np.resize(leaf, (n, *leaf.shape[1:])) for leaf in examples))


def is_real(real: Examples, synthetic: Examples) -> Examples:
    """Labelled 1 and 0 instead of by their classes."""
    ys = np.concatenate([np.ones(len(real.ys), np.int32), np.zeros(len(synthetic.ys), np.int32)])
    return both(real, synthetic)._replace(ys=ys)


def judgements(c: Config, name: str, s: Source, made: Made) -> dict[str, tuple[Experiment, dict[str, Examples]]]:
    """Every classifier of a data set: (experiment, its data)."""
    largest, found = s.sizes[-1], {}
    total = round(largest * (1 + c.share))

    def add(what: str, which: str, size: int, seed: int, train: Examples, **held: Examples) -> None:
        data = {"train": repeated(train, total)} | {k: s.data[k] for k in ("validation", "test")} | held
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
        chunk = max(n for n in range(1, 51) if c.judge_updates % n == 0)
        e = Experiment(
            f"synthetic_{what}",
            (spec,),
            grid(seeds=c.judges, lr=3e-3, clip=1.0),
            c.judge_updates,
            chunk,
            probe_every=c.judge_updates,
            tile=1,
            probes=(),
            settings=facts | {"data": fingerprint(data)},
        )
        found[f"{name}_{what}_{which}_{size}_{seed}"] = e, data

    for seed in range(c.seeds):
        train = _generative.ordered(s.data["train"], seed)
        for size in s.sizes:
            real = train.take(slice(size))
            add("mixed", "real", size, seed, real)
            for which in ("vae", "gan"):
                drawer = made.drawers[name, which, size, seed]
                add(
                    "mixed", which, size, seed, both(real, draw(c, s, drawer, which, size, round(c.share * size), seed))
                )
        for which in ("vae", "gan"):
            drawer = made.drawers[name, which, largest, seed]
            fake, real = draw(c, s, drawer, which, largest, largest, seed), train.take(slice(largest))
            held = {
                split: is_real(s.data[split], draw(c, s, drawer, which, largest, len(s.data[split].ys), 100 + seed + i))
                for i, split in ((100, "validation"), (200, "test"))
            }
            add("tstr", which, largest, seed, fake)
            add("discriminative", which, largest, seed, is_real(real, fake), **held)
    return found


@cache
def _accuracy(spec: Spec) -> Any:
    def accuracy(hypers: Any, params: Any, examples: Examples) -> Any:
        n = examples.ys.shape[0]
        batch = TASKS["labelled"](spec).batch({"test": examples}, "test", (np.arange(n), np.ones(n, np.float32)))
        return model.judge(spec, hypers, params, batch).accuracy

    return backend.compiled(accuracy)


def trts(c: Config, name: str, s: Source, made: Made, out: Path) -> dict[str, list[float]]:
    """Per generator, over seeds: the accuracy on its samples of what was trained on the real sequences."""
    found: dict[str, list[float]] = {}
    for seed in range(c.seeds):
        part = out / "judges" / f"{name}_mixed_real_{s.sizes[-1]}_{seed}"
        e = read_experiment(part)
        for which in ("vae", "gan"):
            drawer = made.drawers[name, which, s.sizes[-1], seed]
            fake = draw(c, s, drawer, which, s.sizes[-1], len(s.data["test"].ys), 300 + seed)
            got = [_accuracy(e.specs[0])(e.hypers.at(i).arrays(), restore(part, i), fake) for i in range(c.judges)]
            found.setdefault(which, []).append(float(np.mean(got)))
    return found


def shown(c: Config, s: Source, made: Made, name: str) -> dict[str, np.ndarray]:
    """Real sequences and samples to look at: four of each class that are drawn first."""
    seed, largest = 0, s.sizes[-1]
    train = made.drawers[name, "vae", largest, seed].train
    rows = np.concatenate([np.flatnonzero(train.ys == y)[:4] for y in range(s.kind.classes)])
    sets = {"real": train.take(rows)}
    for which in ("vae", "gan"):
        found = draw(c, s, made.drawers[name, which, largest, seed], which, largest, 4 * s.kind.classes, seed)
        order = np.argsort(found.ys, kind="stable")
        sets[which] = found.take(order)
    return {f"{name}/samples/{k}/{part}": getattr(v, part) for k, v in sets.items() for part in Examples._fields}


def main(config: Config) -> None:
    """Reads, trains generators and judges (or goes on), draws."""
    c = dataclasses.replace(config, **SMOKE, judge_updates=20) if config.smoke else config
    for name in ("seeds", "hidden", "latent", "vae_updates", "gan_updates", "judges", "judge_updates"):
        if getattr(c, name) < 1:
            raise ConfigError(f"{name} is {getattr(c, name)}; it must be a whole number of at least 1.")
    if not c.share > 0 or not c.data:
        raise ConfigError(f"share is {c.share}, data is {c.data}; share must be above 0 and data not empty.")
    backend.start()
    sources = {name: source(c, name) for name in c.data}
    out = c.out or Path("runs") / f"synthetic-{digest(c, sources)}"
    made = generators(c, sources, out / "generators")
    for name, s in sources.items():
        made.arrays.update(shown(c, s, made, name))
        made.facts[name] |= {"sizes": s.sizes, "steps": s.kind.steps, "classes": s.kind.classes}
    parts = {k: v for name, s in sources.items() for k, v in judgements(c, name, s, made).items()}
    experiments, data = {k: e for k, (e, _) in parts.items()}, {k: d for k, (_, d) in parts.items()}
    within = dataclasses.replace(c, out=out / "judges")
    # One gradient of these shapes is held against autodiff; the others are of the same program.
    first = {next(k for k in parts if k.startswith(name)) for name in sources}
    launch_all({k: experiments.pop(k) for k in sorted(first)}, within, data)
    launch_all(experiments, dataclasses.replace(within, verify=False), data)
    for name, s in sources.items():
        made.facts[name]["trts"] = trts(c, name, s, made, out)
    write(out, made)
    analysis.show(out)


def digest(c: Config, sources: dict[str, Source]) -> str:
    """Of all that decides the results."""
    kept = {k: v for k, v in dataclasses.asdict(c).items() if k not in {f.name for f in dataclasses.fields(Options)}}
    told = json.dumps([kept, c.smoke, {name: fingerprint(s.data) for name, s in sources.items()}], default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def write(out: Path, made: Made) -> None:
    """What the analysis reads beside the records of the judges, each file in one step."""
    part = out / f".{analysis.ARRAYS}.{os.getpid()}"
    with open(part, "wb") as file:
        np.savez_compressed(file, **made.arrays)  # type: ignore[arg-type]
    part.replace(out / analysis.ARRAYS)
    part = out / f".{analysis.FACTS}.{os.getpid()}"
    part.write_text(json.dumps(made.facts), encoding="utf-8")
    part.replace(out / analysis.FACTS)


if __name__ == "__main__":
    script(Config, main, __doc__)
