"""Notes: augmentation. Each change that the notes name, trained with and without. See that most of them are within the
noise of three seeds.

    python experiments/notes/17_augmentation.py --augment flip_vertical colour_jitter overlapping_windows
    python experiments/notes/17_augmentation.py --augment insert_random --data-dir DIR
    python experiments/notes/17_augmentation.py --augment background pitch --audio-dir DIR

Images are digits, series Japanese vowels, tables tumours, texts film reviews, recordings spoken digits. What each looks
like, and what it is worth against more examples: `experiments/augmentation.py`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

import seqdyn as sd
from analysis import style
from experiments import _augmented_text as reworded
from seqdyn.data.audio import spoken_digits
from seqdyn.data.augment import AUGMENTATIONS
from seqdyn.data.packaged import breast_cancer, digits, japanese_vowels
from seqdyn.data.scaling import windows
from seqdyn.data.splits import beginning
from seqdyn.data.waves import ChangeName
from seqdyn.runs.script import Seeds, fingerprint, script
from seqdyn.types import ConfigError

WAVES: dict[str, ChangeName] = {"white_noise" if name == "noise" else name: name for name in get_args(ChangeName)}
BANKS = (*reworded.IN_BANK, *WAVES)
NAMES = (*(name for name in AUGMENTATIONS if name != "bank"), *BANKS, "overlapping_windows")
STRENGTH = {"text": 0.1, "any": 0.5}
"""The share of words, and of examples that come from a bank; of numbers 1."""


@dataclass(frozen=True)
class Config:
    """Which changes, and how long."""

    augment: tuple[str, ...] = ("rotation", "flip", "flip_vertical", "colour_jitter", "jitter", "overlapping_windows")
    data_dir: Path | None = None
    """TFDS data directory that holds imdb_reviews, for texts."""
    vectors: Path | None = None
    """File of word vectors, for insert and neighbours."""
    audio_dir: Path | None = None
    """Folder of the recordings of the Free Spoken Digit Dataset."""
    examples: int = 150
    """Training examples."""
    reviews: int = 4000
    """How many are read of each half of the film reviews."""
    updates: int = 800
    seeds: Seeds = 3
    out: Path = Path("runs/notes/augmentation")
    """Other settings need another directory."""


class Setting(NamedTuple):
    """What is trained on, without and with."""

    without: dict[str, Any]
    with_it: dict[str, Any]
    shape: dict[str, Any]
    augment: tuple[Any, ...]
    strength: float


def few(data: dict[str, Any], n: int) -> dict[str, Any]:
    """The data with n training examples, and their variants."""
    rows = beginning(data["train"].ys, n)
    return data | {name: data[name].take(rows) for name in ("train", "bank") if name in data}


def setting(c: Config, name: str) -> Setting:
    """The data of a change and how a spec asks for it. ConfigError for a name that is none, and for missing data."""
    if name not in NAMES:
        raise ConfigError(f"augment is {name!r}; it must be some of {', '.join(NAMES)}.")
    kind = AUGMENTATIONS[name].kind if name in AUGMENTATIONS else "any"
    augment, strength = (name,) if kind != "any" else ("bank",), STRENGTH.get(kind, 1.0)
    if name == "overlapping_windows":
        whole = few(japanese_vowels(), c.examples)
        held = {split: windows(part, 7, 7)[0] for split, part in whole.items()}
        return Setting(
            held, held | {"train": windows(whole["train"], 7, 2)[0]}, dict(steps=7, features=12, classes=9), (), 0
        )
    if kind == "text" or name in reworded.IN_BANK:
        if c.data_dir is None:
            raise ConfigError(f"data_dir is None and augment has {name!r}; name TFDS's data directory with --data-dir.")
        if name in reworded.TABLED and c.vectors is None:
            raise ConfigError(f"vectors is None and augment has {name!r}; name a file of word vectors with --vectors.")
        reviews = reworded.read(c.data_dir, c.vectors, vocabulary=5000, length=40, limit=c.reviews)
        data = reworded.data(reviews, c.examples, name if name in reworded.METHODS else "none", test=2000)
        shape = dict(steps=40, vocabulary=len(reviews.text.vocabulary), embedding=32, classes=2)
        return Setting(data, data, shape, augment, strength)
    if name in WAVES:
        if c.audio_dir is None:
            raise ConfigError(
                f"audio_dir is None and augment has {name!r}; name the recordings' folder with --audio-dir."
            )
        data = few(spoken_digits(c.audio_dir, variants=2, changes=(WAVES[name],), limit=4 * c.examples), c.examples)
        return Setting(data, data, dict(steps=51, features=40, classes=10), augment, strength)
    coloured = name.startswith("colour")
    data, shape = {
        "image": (lambda: digits(coloured=coloured), dict(steps=8, features=24 if coloured else 8, classes=10)),
        "series": (japanese_vowels, dict(steps=29, features=12, classes=9)),
        "table": (breast_cancer, dict(steps=30, features=1, classes=2)),
    }[kind]
    data = few(data(), c.examples)
    return Setting(data, data, shape | {"kind": kind}, augment, strength)


def errors(c: Config, name: str, of: Setting) -> list[np.ndarray]:
    """Test errors without and with, a seed each, where the validation accuracy is best."""
    spec = sd.Spec("labelled", batch=16, cell="gru", hidden=(32,), augment=of.augment, **of.shape)
    strengths = {"strength": [0.0, of.strength]} if of.augment else {}
    parts = {"both": of.without} if of.augment else {"without": of.without, "with": of.with_it}
    found = []
    for part, data in parts.items():
        runs, looks = sd.grid(spec, seeds=c.seeds, lr=3e-3, clip=1.0, **strengths), max(1, min(10, c.updates))
        look = c.updates // looks
        noted = {"data": fingerprint(data)}
        one = sd.Experiment(name, runs, updates=looks * look, chunk=look, probe_every=look, probes=(), settings=noted)
        ds = sd.load(sd.run(one, c.out / name / part, data, verify=False))
        best = np.argmax(ds["validation_accuracy"].values, axis=1)
        error = 1 - np.take_along_axis(ds["test_accuracy"].values, best[:, None], axis=1)[:, 0]
        found += [error[ds["strength"].values == s] for s in strengths["strength"]] if strengths else [error]
    return found


def main(c: Config) -> None:
    """Trains, prints a line for each change, draws."""
    settings = {name: setting(c, name) for name in c.augment}  # what is missing is said before anything is trained
    found = {name: errors(c, name, of) for name, of in settings.items()}
    for name, pair in found.items():
        without, with_it = (f"{each.mean():.1%} ± {each.std():.1%}" for each in pair)
        print(f"{name:20} test error without {without}, with {with_it}")
    with style.look():
        fig, axes = style.panels(1, 1, 0.6 + 0.25 * len(found))
        for i, (label, marker, face) in enumerate((("without", "o", "white"), ("with", "o", style.BLUE))):
            for y, pair in enumerate(found.values()):
                seen = dict(label=label) if y == 0 else {}
                axes[0, 0].plot(
                    100 * pair[i],
                    np.full(len(pair[i]), y + 0.12 * (2 * i - 1)),
                    marker,
                    color=style.BLUE,
                    markerfacecolor=face,
                    markersize=4,
                    **seen,
                )
        axes[0, 0].invert_yaxis()
        axes[0, 0].set_yticks(range(len(found)), list(found))
        axes[0, 0].set(xlabel="test error in percent, each seed")
        style.legend(fig, style.drawn(axes))
        print(style.save(fig, c.out / "figures" / "augmentation"))


if __name__ == "__main__":
    script(Config, main, __doc__)
