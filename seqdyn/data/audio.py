"""Spoken digits as log-mel frames, from the folder of the Free Spoken Digit Dataset, and a bank of changed ones."""

import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float32, Int32

from seqdyn.data.cache import Arrays, cached, content
from seqdyn.data.extras import needed
from seqdyn.data.scaling import padded, standardised
from seqdyn.data.splits import beginning, stratified_split
from seqdyn.data.tasks import BANK
from seqdyn.data.text import Examples
from seqdyn.data.waves import BEHIND, RATE, USUAL, ChangeName, Wave, changed, mono
from seqdyn.parts import is_many
from seqdyn.types import ConfigError, Pad, as_path, one_of, real, whole

TEST = 5
"""Recordings with an index below it are the official test split."""
LOUDEST = 1e6
"""A sample as large is damage; those of floats may pass 1."""
LONGEST = 100_000
"""Milliseconds of a frame or a hop, and seconds of a recording."""
_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.(?i:wav)")


class Recording(NamedTuple):
    """One file, by what its name says."""

    path: Path
    digit: int
    speaker: str
    index: int


class Mel(NamedTuple):
    """How a waveform becomes frames."""

    mels: int = 40
    """Bands, the width of a step."""
    window: float = 25.0
    """Of a frame, in ms."""
    hop: float = 16.0
    """From a frame to the next, in ms."""
    seconds: float = 0.8
    """What is kept of a longer recording: 98% are shorter."""

    @property
    def steps(self) -> int:
        """Frames of a recording of `seconds`."""
        return 1 + int(self.seconds * RATE) // self.samples(self.hop)

    def samples(self, ms: float) -> int:
        """As many as so many ms are."""
        return round(ms * RATE / 1000)


def recordings(folder: str | Path) -> list[Recording]:
    """What a folder of `{digit}_{speaker}_{index}.wav` holds, by name.

    ConfigError for a folder that is missing, has no such file, or has a .wav file of another name.
    """
    rule = "the folder of the Free Spoken Digit Dataset's recordings, {digit}_{speaker}_{index}.wav"
    folder = as_path("folder", folder, rule)
    if not folder.is_dir():
        raise ConfigError(f"folder is {str(folder)!r}, but must be {rule}: it does not exist.")
    found = []
    for path in _waves(folder):
        name = _NAME.fullmatch(path.name)
        if name is None:
            raise ConfigError(f"folder is {str(folder)!r}, but must be {rule}: it has a file {path.name!r}.")
        found.append(Recording(path, int(name[1]), name[2], int(name[3])))
    if not any(one.index >= TEST for one in found) or not any(one.index < TEST for one in found):
        raise ConfigError(f"folder is {str(folder)!r}, but must be {rule}, some below index {TEST} and some not.")
    return found


def spoken_digits(
    folder: str | Path,
    *,
    mel: Mel = Mel(),
    pad: Pad = "before",
    validation: float = 0.2,
    held_out: Literal["recordings", "speakers"] = "recordings",
    seed: int = 0,
    limit: int | None = None,
    variants: int = 0,
    changes: tuple[ChangeName, ...] = ("pitch", "stretch", "speed", "noise"),
    background: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> dict[str, Examples]:
    """Digits 0 … 9 said in English by six speakers, at 8 kHz, as log-mel frames: xs [n, 51, 40] at the defaults
    (Free Spoken Digit Dataset 1.0.10, Jackson et al., CC BY-SA 4.0).

    Test is the official one, index 0 … 4 of each speaker and digit: 300 recordings. Validation is split off the 2,700
    others, by digit, or, with `held_out` 'speakers', in whole speakers. Frames are decibels of mel power, at most 80
    below the recording's loudest (librosa), standardised on training frames. `limit` keeps that many of train with
    validation, and of test, digits in proportion.

    With `variants` K the key `tasks.BANK` holds K changed versions of each training recording, xs [n, K, 51, 40] and
    lengths [n, K], variant k changed by `changes[k % len(changes)]` (`waves.changed`), a function of file name, k and
    `seed`. What 'background' puts behind a recording comes from the folder `background`, whose .wav files are mono at
    8 kHz, or, for None, is another training recording: somebody else speaks. Frames are cached: those of all recordings
    take 10 s, four variants of each a minute. ConfigError as for `recordings`, and for a file that cannot be read or is
    not mono at 8 kHz, a missing library, and wrong settings.
    """
    _check(mel, validation, held_out, limit, variants, changes)
    behind = _backgrounds(background, changes)
    found = recordings(folder)
    halves = {"train": [r for r in found if r.index >= TEST], "test": [r for r in found if r.index < TEST]}
    for name, half in halves.items():
        kept = beginning(_digits(half), limit, seed)
        halves[name] = [half[i] for i in kept]
    rest, held = _held_out(halves["train"], validation, held_out, seed)
    chosen = {
        "train": [halves["train"][i] for i in rest],
        "validation": [halves["train"][i] for i in held],
        "test": halves["test"],
    }
    every = [r for half in halves.values() for r in half]
    frames = dict(zip((r.path for r in every), _frames_of(every, mel, cache_dir), strict=True))
    splits = {
        name: Examples(*padded([frames[r.path] for r in part], mel.steps, pad), _digits(part))
        for name, part in chosen.items()
    }
    if variants:
        made = _variants_of(chosen["train"], mel, variants, changes, behind, seed, cache_dir)
        splits[BANK] = Examples(*padded(made, mel.steps, pad), splits["train"].ys)
    splits = standardised(splits, pad)
    if variants:
        xs, lengths, ys = splits[BANK]
        splits[BANK] = Examples(xs.reshape(-1, variants, *xs.shape[1:]), lengths.reshape(-1, variants), ys)
    return splits


def wave(one: Recording) -> Wave:
    """The samples of a recording, in −1 … 1."""
    return _read(one.path)


def _read(path: Path) -> Wave:
    soundfile = needed("soundfile", "reading recordings")
    rule = f"a mono recording at {RATE} Hz"
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except Exception as error:
        raise ConfigError(f"{path} must be {rule}, but cannot be read ({' '.join(str(error).split())}).") from error
    if rate != RATE or samples.ndim != 1 or not len(samples):
        raise ConfigError(f"{path} must be {rule}, but has {rate} Hz and the shape {samples.shape}.")
    largest = np.abs(samples).max()
    if not largest < LOUDEST:  # NaN, too
        raise ConfigError(f"{path} must be {rule}, samples within −1 … 1, but has one of size {largest:g}.")
    return samples


def _waves(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".wav")


def log_mel(samples: Any, mel: Mel = Mel()) -> Float32[np.ndarray, "s d"]:
    """10 log₁₀ of the power in each band and frame, frames centred on every `hop`; at most 80 dB below the largest.
    Samples are `RATE` a second, as `waves.mono` takes them."""
    librosa = needed("librosa", "making log-mel frames")
    window = mel.samples(mel.window)
    # Zero-padded to a longer transform: at 40 bands the lowest would otherwise hold no frequency at all.
    size = max(512, 1 << (window - 1).bit_length())
    power = librosa.feature.melspectrogram(
        y=mono(samples)[: int(mel.seconds * RATE)],
        sr=RATE,
        n_fft=size,
        win_length=window,
        hop_length=mel.samples(mel.hop),
        n_mels=mel.mels,
    )
    return librosa.power_to_db(power, top_db=80.0).T.astype(np.float32)


def _digits(part: list[Recording]) -> Int32[np.ndarray, " n"]:
    return np.array([r.digit for r in part], np.int32)


def _held_out(part: list[Recording], validation: float, by: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rest, held out)"""
    if by == "recordings":
        return stratified_split(_digits(part), validation, seed)
    speakers = sorted({r.speaker for r in part})
    if len(speakers) < 2:
        raise ConfigError(f"held_out is 'speakers', and all recordings are {speakers[0]}'s; there must be two or more.")
    order = np.random.default_rng(seed).permutation(len(speakers))
    taken = min(max(round(validation * len(speakers)), 1), len(speakers) - 1)
    away = np.isin([r.speaker for r in part], [speakers[i] for i in order[:taken]])
    return np.flatnonzero(~away), np.flatnonzero(away)


def _frames_of(every: list[Recording], mel: Mel, cache_dir: str | Path | None) -> list[np.ndarray]:
    return _cached("spoken_digits", every, mel, (), lambda: [log_mel(wave(r), mel) for r in every], cache_dir)


def _backgrounds(folder: str | Path | None, changes: Sequence[ChangeName]) -> list[Path]:
    """The files of a folder of backgrounds; none without one."""
    if folder is None:
        return []
    if "background" not in changes:
        raise ConfigError(f"background is {str(folder)!r} and changes is {changes!r}, which must have 'background'.")
    place = as_path("background", folder, "a folder of .wav files")
    found = _waves(place) if place.is_dir() else []
    if not found:
        raise ConfigError(f"background is {str(folder)!r}, but must be a folder of .wav files.")
    return found


def _variants_of(
    part: list[Recording],
    mel: Mel,
    variants: int,
    changes: Sequence[ChangeName],
    behind: Sequence[Path],
    seed: int,
    cache_dir: Any,
) -> list[np.ndarray]:
    """K after K of each recording."""

    if "background" in changes and not behind and len(part) < 2:
        raise ConfigError("changes has 'background', and there is one training recording; give a folder, background.")

    def other(r: Recording, rng: np.random.Generator) -> Wave:
        others = behind or [o.path for o in part if o != r]
        return _read(others[int(rng.integers(len(others)))])

    def make() -> list[np.ndarray]:
        found = []
        for r in part:
            samples = wave(r)
            for k in range(variants):
                rng = np.random.default_rng([zlib.crc32(r.path.name.encode()), k, seed])
                change = changes[k % len(changes)]
                with_other = (other(r, rng),) if change == "background" else ()
                found.append(log_mel(changed(samples, change, rng, *with_other), mel))
        return found

    settings: tuple[object, ...] = (variants, changes, seed, USUAL)
    if "background" in changes:
        settings += (BEHIND, [content(path) for path in behind])
    return _cached("spoken_digits_bank", part, mel, settings, make, cache_dir)


def _cached(
    name: str, part: list[Recording], mel: Mel, settings: object, make: Callable[[], list[np.ndarray]], cache_dir: Any
) -> list[np.ndarray]:
    """Frames [s, d] of one waveform after the other, of which there are many lengths, by `cache.cached`."""

    def arrays() -> Arrays:
        frames = make()
        return {"frames": np.concatenate(frames), "lengths": np.array([len(f) for f in frames], np.int32)}

    facts = [[content(r.path) for r in part], mel._asdict(), settings]
    found = cached(name, facts, arrays, cache_dir)
    return np.split(found["frames"], np.cumsum(found["lengths"])[:-1])


def _check(
    mel: Mel, validation: float, held_out: str, limit: int | None, variants: int, changes: Sequence[str]
) -> None:
    if not isinstance(mel, Mel):
        raise ConfigError(f"mel is {mel!r:.80}; it must be a Mel.")
    whole("mels", mel.mels)
    for field in ("window", "hop"):
        real(field, getattr(mel, field), lambda ms: 1 <= ms <= LONGEST, f"from 1 to {LONGEST} ms")
    shortest = 1 / RATE
    real(
        "seconds",
        mel.seconds,
        lambda s: shortest <= s <= LONGEST,
        f"at least a sample, 1/{RATE}, and at most {LONGEST}",
    )
    real("validation", validation, lambda share: 0 < share < 1, "between 0 and 1, both excluded")
    one_of("held_out", held_out, ("recordings", "speakers"))
    if limit is not None:
        whole("limit", limit, 20)
    whole("variants", variants, 0)
    names = get_args(ChangeName)
    if not is_many(changes) or not changes or not all(change in names for change in changes):
        raise ConfigError(f"changes is {changes!r:.80}; it must be some of {', '.join(names)}.")
