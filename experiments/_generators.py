"""The generators of `synthetic`: trains every VAE and GAN, and keeps those of the best setting to draw from.

A generator is trained by `seqdyn.run` as any network, and so recorded and resumed.
"""

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from analysis.generated import setting as setting_name
from experiments import _gan, _generative, _vae
from experiments._generative import Kind, Scale
from seqdyn.data import packaged
from seqdyn.data.text import Examples
from seqdyn.learn.config import Experiment, grid
from seqdyn.runs.records import load
from seqdyn.runs.restore import restore
from seqdyn.runs.script import Options, Seeds, fingerprint, launch_all, seeds
from seqdyn.types import ConfigError

Name = Literal["digits", "vowels"]
Setting = tuple[float, bool]
SETTINGS = [0.0, 0.5, 1.0], [False, True]
"""Those of the VAE: how often the decoder is given x_{t−1}, and whether the weight of KL rises."""
EVERY: list[Setting] = list(itertools.product(*SETTINGS))
CRITIC = 3
"""Updates of the critic for each of the generator."""
SAMPLES = (1, 10, 100, 1000)
"""k of the bounds L_k."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """What decides the generators."""

    data: tuple[Name, ...] = ("vowels", "digits")
    """What is learnt."""
    sizes: tuple[int, ...] = (50, 200, 1000)
    """Real training sequences; those that a data set has. The largest is used wherever one is enough."""
    seeds: Seeds = 10
    """Of generators, of the order in which examples are taken, and of samples."""
    hidden: int = 48
    """Width of the generators' recurrent layers."""
    latent: int = 8
    """Latent numbers of the VAE, and random numbers a step of the GAN."""
    vae_updates: int = 1200
    gan_updates: int = 600
    """Of the generator; the critic has three for each."""


class Source(NamedTuple):
    """A data set and what it means to the generators."""

    kind: Kind
    data: dict[str, Examples]
    sizes: tuple[int, ...]


Key = tuple[str, str, int, int]
"""(data set, 'vae' or 'gan', size, seed): a generator."""
Parts = dict[str, tuple[Experiment, dict[str, Examples]]]
"""Experiments, each with its data."""


class Drawer(NamedTuple):
    """A trained generator that can draw."""

    network: Any
    params: Any
    scale: Scale
    seen: Examples
    """What it was trained on."""


def source(c: Config, name: Name) -> Source:
    """Raises ConfigError if no size fits."""
    data = packaged.digits() if name == "digits" else packaged.japanese_vowels()
    n, steps, d = data["train"].xs.shape
    classes = int(data["train"].ys.max()) + 1
    return Source(Kind(steps, d, classes, 16 if name == "digits" else 0), data, fitting(c, name, n))


def fitting(c: Config, name: str, n: int) -> tuple[int, ...]:
    """The sizes that a training split of n examples has, ascending. Raises ConfigError if none is from 32 on."""
    sizes = tuple(sorted(s for s in c.sizes if s <= n))
    if not sizes or sizes[0] < (1 if c.smoke else 32):
        raise ConfigError(f"sizes is {c.sizes}; give at least one from 32 to {n}, the training split of {name}.")
    return sizes


def draw(s: Source, drawer: Drawer, n: int, seed: int) -> Examples:
    """n synthetic sequences, with classes and lengths of those that the generator has seen."""
    return _generative.synthesise(s.kind, *drawer, n, seed)


def launched(c: Config, parts: Parts, out: Path) -> None:
    """Trains what is missing. Of each data set one gradient of every network is held against autodiff; the others are
    of the same program."""
    experiments, data = {k: e for k, (e, _) in parts.items()}, {k: d for k, (_, d) in parts.items()}
    within = dataclasses.replace(c, out=out)
    first = {(e.settings["source"], type(e.specs[0].network)): k for k, e in reversed(experiments.items())}
    launch_all({k: experiments.pop(k) for k in sorted(first.values())}, within, data)
    if experiments:
        launch_all(experiments, dataclasses.replace(within, verify=False), data)


def divisor(n: int, most: int) -> int:
    """The largest divisor of n up to `most`."""
    return max(k for k in range(1, most + 1) if n % k == 0)


class Made(NamedTuple):
    """All generators, and what is known of them."""

    drawers: dict[Key, Drawer]
    samples: dict[str, np.ndarray]
    """By 'data set/real, vae or gan/part of Examples'."""
    facts: dict[str, Any]
    """Per data set: the settings of the VAE with their bounds, and which was chosen."""


def network(c: Config, s: Source, which: str, history: float = 0.0) -> Any:
    """One of the two, untrained."""
    sizes = dict(features=s.kind.features, classes=s.kind.classes, trials=s.kind.trials, hidden=c.hidden)
    return _gan.GAN(**sizes, noise=c.latent) if which == "gan" else _vae.VAE(**sizes, latent=c.latent, history=history)


def seen_by(s: Source, size: int, seed: int) -> tuple[Examples, Scale]:
    """The first examples in the order of a seed, and their scale."""
    seen = _generative.ordered(s.data["train"], seed).take(slice(size))
    return seen, _generative.scaling(s.kind, seen)


def generator(c: Config, name: str, s: Source, which: str, size: int, seed: int, settings: Any = SETTINGS) -> Parts:
    """The experiment that trains a GAN, or a VAE in all of these settings."""
    seen, scale = seen_by(s, size, seed)
    shown = {"train": _generative.repeated(seen, s.sizes[-1]), "validation": s.data["validation"]}
    data = {split: _generative.scaled(s.kind, examples, scale) for split, examples in shown.items()}
    if which == "gan":
        updates = CRITIC * c.gan_updates
        spec = s.kind.spec(network(c, s, which), optimizer=_gan.Players(critic=CRITIC))
        runs, looks = grid(spec, [seed]), updates
    else:
        spec, updates, looks = s.kind.spec(network(c, s, which), stop="loss"), c.vae_updates, divisor(c.vae_updates, 25)
        anneal = [updates / 2 if annealed else 0.0 for annealed in settings[1]]
        runs = grid(spec, [seed], lr=2e-3, history=settings[0], anneal=anneal)
    facts = {"source": name, "model": which, "size": size, "seed": seed, "data": fingerprint(data)}
    e = Experiment(
        f"synthetic_{which}",
        runs,
        updates=updates,
        chunk=divisor(updates, 30) if which == "gan" else looks,
        probe_every=looks,
        tile=1,
        settings=facts,
    )
    return {f"{name}_{which}_{size}_{seed}": (e, data)}


def generators(c: Config, sources: dict[str, Source], out: Path) -> Made:
    """Trains all of them (or goes on): first every setting of the VAE at the largest size and the GANs, then, at the
    other sizes, the setting with the best ELBO on validation."""
    everywhere = [(name, s, seed) for name, s in sources.items() for seed in seeds(c.seeds)]
    parts: Parts = {}
    for name, s, seed in everywhere:
        parts |= generator(c, name, s, "vae", s.sizes[-1], seed)
        for size in s.sizes:
            parts |= generator(c, name, s, "gan", size, seed)
    launched(c, parts, out)
    chosen = {name: best(c, out, name, s) for name, s in sources.items()}
    parts = {}
    for name, s, seed in everywhere:
        for size in s.sizes[:-1]:
            parts |= generator(c, name, s, "vae", size, seed, ([chosen[name][0]], [chosen[name][1]]))
    launched(dataclasses.replace(c, verify=False), parts, out)

    drawers: dict[Key, Drawer] = {}
    facts: dict[str, Any] = {name: {"chosen": setting_name(*chosen[name]), "settings": {}} for name in sources}
    for name, s, seed in everywhere:
        for size in s.sizes:
            seen, scale = seen_by(s, size, seed)
            gan = restore(out / f"{name}_gan_{size}_{seed}", 0)
            drawers[name, "gan", size, seed] = Drawer(network(c, s, "gan"), gan, scale, seen)
            for run, setting in enumerate(EVERY if size == s.sizes[-1] else [chosen[name]]):
                vae = network(c, s, "vae", setting[0])
                drawer = Drawer(vae, restore(out / f"{name}_vae_{size}_{seed}", run, best=True), scale, seen)
                if setting == chosen[name]:
                    drawers[name, "vae", size, seed] = drawer
                if size == s.sizes[-1]:
                    judged = _vae.evaluate(s.kind, *drawer[:3], s.data["test"], SAMPLES, 8 if c.smoke else 32)
                    facts[name]["settings"].setdefault(setting_name(*setting), []).append(judged._asdict())
    return Made(drawers, {}, facts)


def best(c: Config, out: Path, name: str, s: Source) -> Setting:
    """The setting of a data set's VAE with the best ELBO on validation, mean over seeds."""
    losses = [load(out / f"{name}_vae_{s.sizes[-1]}_{seed}").validation_loss.min("probe") for seed in seeds(c.seeds)]
    return EVERY[int(np.argmin(np.mean(losses, axis=0)))]
