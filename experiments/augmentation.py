"""What are changed copies of the training examples worth, of what data, and how many real examples do they replace?

Hypothesis: augmentation helps most where examples are few, and less as they become many; a change that does not keep
the label does damage; the gradient's reach stays as it is, since the network sees other data and is not another one.
Task: a GRU on Japanese vowels (who speaks?), on digits read row by row, on breast cancer read feature by feature; with
`--data-dir` also on MNIST and film reviews, with `--audio-dir` on spoken digits. From each training split a few, some
and all examples are taken, and trained on with strengths 0 (nothing), 0.25, 0.5 and 1 of the changes that fit:
  series    time warping, jitter, scaling, windows (Um et al. 2017; Le Guennec et al. 2016)
  images    rotation and translation; and, by itself, flipping, which makes another sign of a digit
  tables    random feature subsets (Ho 1998), perturbation
  audio     a bank of variants in pitch, pace, speed and noise (Salamon & Bello 2017; Ko et al. 2015)
  text      words deleted and swapped (Wei & Zou 2019), strength 1 being a fifth of them
Strength and look are chosen by the validation split, and the test split is read there.
Cost: 480 runs × 1,600 updates, nine and a half minutes of processor time.
Expect: what `CLAIMS` says of vowels, digits and breast cancer; its verdicts are printed.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from analysis import augmentation as analysis
from analysis import claims
from analysis.claims import Claim, Statistic, minus, of
from experiments._augmented_text import examples, read
from experiments._reviews import SMOKE
from seqdyn import backend
from seqdyn.data.audio import spoken_digits
from seqdyn.data.augment import AUGMENTATIONS
from seqdyn.data.batches import Batch
from seqdyn.data.datasets import mnist
from seqdyn.data.packaged import breast_cancer, digits, japanese_vowels
from seqdyn.data.splits import balanced_order, beginning
from seqdyn.data.tasks import BANK
from seqdyn.data.text import Examples
from seqdyn.data.waves import USUAL
from seqdyn.fields import AugmentName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.nets.bptt import valid_steps
from seqdyn.runs.run import default_out
from seqdyn.runs.script import Claiming, Presets, Seeds, fingerprint, launch_all, replicated, script, with_preset
from seqdyn.types import ConfigError, whole

DataName = Literal["series", "images", "tables", "audio", "text"]


@dataclass(frozen=True, kw_only=True)
class Config(Presets, Claiming):
    """Data × training examples × strengths × seeds."""

    data: tuple[DataName, ...] = ()
    """Kinds of data; none named: series, images and tables, and those whose directory is given."""
    data_dir: Path | None = None
    """TFDS data directory that holds mnist and imdb_reviews."""
    vectors: Path | None = None
    """File of word vectors, to show reviews with words replaced by their neighbours."""
    audio_dir: Path | None = None
    """Folder of the recordings of the Free Spoken Digit Dataset, {digit}_{speaker}_{index}.wav."""
    series: tuple[int, ...] = (27, 72, 216)
    """Sequences to train on; each smaller set is part of the larger ones, here and below."""
    images: tuple[int, ...] = (50, 200, 1000)
    tables: tuple[int, ...] = (20, 85, 340)
    audio: tuple[int, ...] = (120, 540, 2160)
    text: tuple[int, ...] = (500, 2000, 8000)
    strengths: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    """Of the changes; 0 is without."""
    seeds: Seeds = 10
    hidden: int = 32
    batch: int = 16
    lr: float = 3e-3
    updates: int = 1600
    """Of each run, however many examples it has."""
    looks: int = 10
    """Looks at validation and test while training."""
    tile: int = 4


TINY: dict[str, Any] = dict(
    series=(27,), images=(30,), tables=(20,), audio=(40,), text=(60,), seeds=2, hidden=6, updates=8, looks=2
)
"""Of --smoke."""
FULL: dict[str, Any] = dict(
    series=(27, 54, 108, 216),
    images=(50, 100, 200, 500, 1000),
    tables=(20, 40, 80, 160, 341),
    audio=(100, 200, 400, 1000, 2160),
    text=(500, 1000, 2000, 8000, 20_000),
    strengths=(0.0, 0.1, 0.25, 0.5, 1.0, 1.5),
    hidden=64,
    updates=4000,
)
"""Of --paper: hours."""


class Setting(NamedTuple):
    """A data set and what may be done to it."""

    name: str
    kind: DataName
    splits: dict[str, Any]
    sizes: tuple[int, ...]
    shape: dict[str, Any]
    """What a Spec says of it."""
    augment: tuple[AugmentName, ...]
    harmful: tuple[AugmentName, ...] = ()
    """What does not keep the label, tried by itself."""
    reviews: Any = None
    """Of text: what they say, `_augmented_text.Reviews`."""


def series(c: Config) -> list[Setting]:
    """Japanese vowels."""
    shape = dict(steps=29, features=12, classes=9)
    changes: tuple[AugmentName, ...] = ("time_warp", "jitter", "scaling", "window")
    return [Setting("vowels", "series", japanese_vowels(), c.series, shape, changes)]


PICTURED: tuple[AugmentName, ...] = ("rotation", "translation")
"""Few: each change of place blurs an image of 8 × 8 pixels once more."""


def images(c: Config) -> list[Setting]:
    """scikit-learn's digits, and MNIST where its directory is given."""
    shape = dict(steps=8, features=8, classes=10, kind="image")
    found = [Setting("digits", "images", digits(), c.images, shape, PICTURED, ("flip",))]
    if c.data_dir is not None:
        whole = mnist(c.data_dir, rows=True, limit=300 if c.smoke else None)
        held = whole | {name: part(whole[name], 2000) for name in ("validation", "test")}
        shape = shape | dict(steps=28, features=28)
        found.append(Setting("MNIST", "images", held, c.images, shape, PICTURED, ("flip",)))
    return found


def tables(c: Config) -> list[Setting]:
    """Tumours, a feature a step."""
    shape = dict(steps=30, features=1, classes=2, kind="table")
    return [Setting("tumours", "tables", breast_cancer(), c.tables, shape, ("feature_subset", "perturbation"))]


def audio(c: Config) -> list[Setting]:
    """Spoken digits with a bank of a variant of each kind."""
    if c.audio_dir is None:
        raise ConfigError("data has 'audio' and audio_dir is None; name the folder of recordings with --audio-dir.")
    found = spoken_digits(c.audio_dir, limit=60 if c.smoke else None, variants=len(USUAL), changes=tuple(USUAL))
    steps, features = found["train"].xs.shape[1:]
    return [Setting("spoken", "audio", found, c.audio, dict(steps=steps, features=features, classes=10), (BANK,))]


def text(c: Config) -> list[Setting]:
    """The last 80 words of reviews."""
    if c.data_dir is None:
        raise ConfigError("data has 'text' and data_dir is None; name TFDS's data directory with --data-dir.")
    found = read(c.data_dir, c.vectors, vocabulary=5000, length=8 if c.smoke else 80, limit=SMOKE if c.smoke else None)
    splits = found.text.splits
    held = splits | {name: part(splits[name], 2500) for name in ("validation", "test")}
    shape = dict(steps=held["train"].xs.shape[1], vocabulary=len(found.text.vocabulary), embedding=c.hidden)
    return [Setting("reviews", "text", held, c.text, shape, ("delete", "swap"), reviews=found)]


SETTINGS = {"series": series, "images": images, "tables": tables, "audio": audio, "text": text}


def part(whole: Examples, n: int) -> Examples:
    """The first n of the balanced order (all, of fewer): each smaller part is in every larger one."""
    return whole.take(beginning(whole.ys, n))


def fewer(setting: Setting, n: int) -> dict[str, Any]:
    """The data with n training examples, and their variants, repeated until they are as many as the largest set has:
    all sizes share one program."""
    train = setting.splits["train"]
    whole(setting.kind, n)
    if n > len(train.ys):
        raise ConfigError(f"{setting.kind} has {n}, but must be at most the training examples, {len(train.ys)}.")
    rows = np.resize(balanced_order(train.ys, 0)[:n], max(setting.sizes))
    listed = (name for name in ("train", BANK) if name in setting.splits)
    return setting.splits | {name: setting.splits[name].take(rows) for name in listed}


def experiment(c: Config, setting: Setting, n: int, data: dict[str, Any]) -> Experiment:
    """One data set with n training examples: what keeps the label, and what does not, at each strength."""
    every = c.updates // whole("looks", c.looks)
    if c.updates % c.looks or every < 1:
        raise ConfigError(f"updates is {c.updates}; it must be a multiple of looks, {c.looks}.")
    one = partial(Spec, "labelled", batch=c.batch, cell="gru", hidden=(c.hidden,), **setting.shape)
    specs = [one(name="kept", augment=setting.augment)]
    specs += [one(name="flipped", augment=setting.harmful)] if setting.harmful else []
    # Of words strength is the share that is changed.
    scale = 0.2 if setting.kind == "text" else 1.0
    numbers = grid(seeds=c.seeds, lr=c.lr, clip=1.0, strength=[scale * s for s in c.strengths])
    noted = {"set": setting.name, "kind": setting.kind, "examples": n, "data": fingerprint(data)}
    return Experiment(
        f"augmentation_{setting.name}{n}",
        tuple(specs),
        numbers,
        updates=c.updates,
        chunk=every,
        probe_every=every,
        tile=c.tile,
        probes=(),
        settings=noted,
    )


# --- what is shown ------------------------------------------------------------------------------------------

SHOWN = 3
"""Draws of each change."""


def shown(setting: Setting) -> dict[str, np.ndarray]:
    """A training example, '<kind>/<change>/before', and as each change that fits makes it, '…/after': [s, d], and
    `SHOWN` draws at strength 1, [SHOWN, s, d]. Of a recording '<kind>/before' and a variant of each kind,
    '<kind>/<change>'; of reviews '<kind>/<change>/<i>': (before, after)."""
    train = setting.splits["train"]
    if setting.kind == "audio":
        i, bank = int(np.argsort(train.lengths)[len(train.lengths) // 2]), setting.splits[BANK]
        found = {"before": train.xs[i][-train.lengths[i] :]}
        found |= {name: bank.xs[i, k][-bank.lengths[i, k] :] for k, name in enumerate(USUAL)}
        return {f"audio/{name}": frames for name, frames in found.items()}
    if setting.kind == "text":
        return {f"text/{e.method}/{i}": np.array([e.before, e.after]) for i, e in enumerate(examples(setting.reviews))}
    if setting.name == "MNIST":
        return {}  # scikit-learn's digits are shown
    kind, found = {"series": "series", "images": "image", "tables": "table"}[setting.kind], {}
    for name, change in AUGMENTATIONS.items():
        if change.kind == kind:
            of = digits(coloured=True)["train"] if name.startswith("colour") else train
            # A six: flipped, it is no digit at all. Of other data the sequence of the middle length.
            i = np.flatnonzero(of.ys == 6)[1] if kind == "image" else np.argsort(of.lengths)[len(of.lengths) // 2]
            batch = Batch(jnp.repeat(of.xs[i][:, None], SHOWN, axis=1), jnp.zeros(SHOWN))
            batch = batch._replace(mask=valid_steps(jnp.full(SHOWN, of.lengths[i]), len(of.xs[i]), "before"))
            after = np.asarray(backend.compiled(change.apply)(jax.random.key(3), batch, jnp.float32(1)).xs)
            mask = slice(-int(of.lengths[i]), None)
            found[f"{setting.kind}/{name}/before"] = of.xs[i][mask]
            found[f"{setting.kind}/{name}/after"] = np.moveaxis(after, 1, 0)[:, mask]
    return found


VOWELS, DIGITS, TUMOURS = (
    tuple(f"augmentation_{name}{n}" for n in sizes)
    for name, sizes in (("vowels", Config.series), ("digits", Config.images), ("tumours", Config.tables))
)
"""Experiments, of few examples first."""


def plain(column: str, *experiments: str) -> Statistic:
    """Without augmentation: the mean of some experiments."""
    return of(column, experiment=experiments, label="kept", strength=0.0)


def change(column: str, *experiments: str) -> Statistic:
    """What the changes that keep the label make of a column, at the strength that validation chose."""
    return minus(of(f"settled_{column}", experiment=experiments), plain(column, *experiments))


CLAIMS = (
    Claim(
        "Augmented, the test error of vowels falls (mean of three sizes)",
        "difference",
        change("error", *VOWELS),
        0.0,
        "below",
    ),
    Claim(
        "Augmented, that of 85 rows of breast cancer falls",
        "difference",
        change("error", TUMOURS[1]),
        0.0,
        "below",
    ),
    Claim(
        "Rotation and translation raise that of 1,000 digits",
        "difference",
        change("error", DIGITS[-1]),
        0.0,
    ),
    Claim(
        "Flipping does, too",
        "difference",
        minus(of("error", experiment=DIGITS[-1], label="flipped", strength=1.0), plain("error", DIGITS[-1])),
        0.0,
    ),
    Claim(
        "At full strength rotation and translation harm 1,000 digits more than flipping does",
        "difference",
        minus(
            of("error", experiment=DIGITS[-1], label="kept", strength=1.0),
            of("error", experiment=DIGITS[-1], label="flipped", strength=1.0),
        ),
        0.0,
    ),
    Claim(
        "The gradient's reach does not stay: half a sequence back it is larger with augmentation, of vowels (mean of "
        "three sizes)",
        "difference",
        change("reach", *VOWELS),
        0.0,
    ),
    Claim("Of 50 and 200 digits, too (mean of both)", "difference", change("reach", *DIGITS[:-1]), 0.0),
)
"""Strength and look are those that validation chose; errors in percent, reaches as their log₂."""


def once(config: Config) -> Mapping[str, str]:
    """Reads, trains (or goes on), draws; the verdicts."""
    given: dict[str, Path | None] = {"audio": config.audio_dir, "text": config.data_dir}
    wanted = config.data or tuple(name for name in SETTINGS if name not in given or given[name] is not None)
    found = [setting for name in wanted for setting in SETTINGS[name](config)]
    parts, data = {}, {}
    for setting in found:
        for n in getattr(config, setting.kind):
            name = f"{setting.name}{n}"
            data[name] = fewer(setting, n)
            parts[name] = experiment(config, setting, n, data[name])
    out = config.out or default_out(*parts.values())
    done = launch_all(parts, dataclasses.replace(config, out=out), data)
    np.savez(out / analysis.EXAMPLES, **{k: v for setting in found for k, v in shown(setting).items()})  # type: ignore[arg-type]
    return claims.report(CLAIMS, list(done.values()), lambda found: analysis.show(out, found), analysis.columns)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(config, TINY, FULL)
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
