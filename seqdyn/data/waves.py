"""Spoken waveforms changed so that the word survives: pitch, pace, speed, noise, other recordings behind it.

Pitch, pace and noise: Salamon & Bello 2017, "Deep convolutional neural networks and data augmentation for environmental
sound classification", §II-B. Speed: Ko, Peddinti, Povey & Khudanpur 2015, "Audio augmentation for speech recognition".

Samples are what `mono` takes; ConfigError, as there, for others.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from seqdyn.data.arrays import exact
from seqdyn.data.extras import needed
from seqdyn.types import ConfigError

RATE = 8000
"""Samples a second."""
WINDOW = 256
"""Samples of a Fourier transform, 32 ms."""
Wave = Float32[np.ndarray, " _"]
ChangeName = Literal["pitch", "stretch", "speed", "noise", "background"]


def mono(samples: Any, name: str = "samples") -> Wave:
    """Samples as 32-bit floats; whole ones of 16 or 32 bits, as WAV files hold them, over their range. ConfigError for
    what is not one channel of finite numbers."""
    found = exact(name, samples)
    if found.dtype.kind == "i" and found.itemsize in (2, 4):  # whatever the order of its bytes
        found = found / 2.0 ** (8 * found.itemsize - 1)
    if found.ndim != 1 or not found.size or found.dtype.kind != "f":
        raise ConfigError(
            f"{name} are {found.dtype} of the shape {found.shape}; they must be floats, or whole numbers of 16 or 32 "
            "bits, of one channel, [n]; the mean over channels makes one of several."
        )
    return found.astype(np.float32, copy=False)


def pitch(samples: Any, semitones: float) -> Wave:
    """Frequencies times 2^(semitones / 12), the duration kept (phase vocoder and resampling, librosa)."""
    return _librosa().effects.pitch_shift(mono(samples), sr=RATE, n_steps=semitones, n_fft=WINDOW).astype(np.float32)


def stretch(samples: Any, rate: float) -> Wave:
    """`rate` times as fast, frequencies kept (phase vocoder, librosa)."""
    return _librosa().effects.time_stretch(mono(samples), rate=rate, n_fft=WINDOW).astype(np.float32)


def speed(samples: Any, factor: float) -> Wave:
    """`factor` times as fast, frequencies `factor` times as high: a record played faster (resampling, librosa)."""
    return _librosa().resample(mono(samples), orig_sr=RATE, target_sr=RATE / factor).astype(np.float32)


def noise(samples: Any, decibels: float, rng: np.random.Generator) -> Wave:
    """White noise added, so strong that 10 log₁₀ (power of the signal / power of the noise) is `decibels`."""
    samples = mono(samples)
    return _mixed(samples, rng.normal(size=len(samples)), decibels)


def background(samples: Any, other: Any, decibels: float, rng: np.random.Generator) -> Wave:
    """A stretch of another recording, from a random place on and again from its beginning where it ends, added so
    softly that 10 log₁₀ (power of the signal / power of the stretch) is `decibels`; a silent one adds nothing."""
    samples, other = mono(samples), mono(other, "other")
    start = rng.integers(len(other))
    behind = np.resize(np.roll(other.astype(np.float64), -start), len(samples))
    return _mixed(samples, behind, decibels) if behind.any() else samples


def _mixed(samples: Wave, added: np.ndarray, decibels: float) -> Wave:
    power, of_added = np.mean(np.square(samples, dtype=np.float64)), np.mean(added**2)
    return (samples + added * np.sqrt(power / of_added / 10 ** (decibels / 10))).astype(np.float32)


def changed(samples: Any, change: ChangeName, rng: np.random.Generator, other: Any = None) -> Wave:
    """One change of a usual size: 'pitch' by U[−2, 2] semitones; 'stretch' at a rate between 1/1.25 and 1.25 and
    'speed' by a factor between 1/1.1 and 1.1, both uniform in their logarithm; 'noise' at U[10, 30] dB; 'background' at
    U[5, 20] dB, with `other` behind it."""
    if change == "background":
        return background(samples, other, rng.uniform(*BEHIND), rng)
    amount = rng.uniform(*USUAL[change])
    match change:
        case "pitch":
            return pitch(samples, amount)
        case "stretch":
            return stretch(samples, float(np.exp(amount)))
        case "speed":
            return speed(samples, float(np.exp(amount)))
    return noise(samples, amount, rng)


USUAL: dict[ChangeName, tuple[float, float]] = {
    "pitch": (-2.0, 2.0),
    "stretch": (-float(np.log(1.25)), float(np.log(1.25))),
    "speed": (-float(np.log(1.1)), float(np.log(1.1))),
    "noise": (10.0, 30.0),
}
"""Between what the amount is drawn: semitones, logarithms of a rate and of a factor, decibels."""
BEHIND = (5.0, 20.0)
"""Decibels of 'background', which needs another recording."""


def _librosa() -> Any:
    return needed("librosa", "changing waveforms")
