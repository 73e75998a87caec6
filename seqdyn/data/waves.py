"""Spoken waveforms changed so that the word survives: pitch, pace, speed, noise.

Pitch, pace and noise: Salamon & Bello 2017, "Deep convolutional neural networks and data augmentation for environmental
sound classification", §II-B. Speed: Ko, Peddinti, Povey & Khudanpur 2015, "Audio augmentation for speech recognition".
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from seqdyn.data.extras import needed

RATE = 8000
"""Samples a second."""
WINDOW = 256
"""Samples of a Fourier transform, 32 ms."""
Wave = Float32[np.ndarray, " _"]
ChangeName = Literal["pitch", "stretch", "speed", "noise"]


def pitch(samples: Wave, semitones: float) -> Wave:
    """Frequencies times 2^(semitones / 12), the duration kept (phase vocoder and resampling, librosa)."""
    return _librosa().effects.pitch_shift(samples, sr=RATE, n_steps=semitones, n_fft=WINDOW).astype(np.float32)


def stretch(samples: Wave, rate: float) -> Wave:
    """`rate` times as fast, frequencies kept (phase vocoder, librosa)."""
    return _librosa().effects.time_stretch(samples, rate=rate, n_fft=WINDOW).astype(np.float32)


def speed(samples: Wave, factor: float) -> Wave:
    """`factor` times as fast, frequencies `factor` times as high: a record played faster (resampling, librosa)."""
    return _librosa().resample(samples, orig_sr=RATE, target_sr=RATE / factor).astype(np.float32)


def noise(samples: Wave, decibels: float, rng: np.random.Generator) -> Wave:
    """White noise added, so strong that 10 log₁₀ (power of the signal / power of the noise) is `decibels`."""
    white = rng.normal(size=len(samples))
    power, of_noise = np.mean(np.square(samples, dtype=np.float64)), np.mean(white**2)
    return (samples + white * np.sqrt(power / of_noise / 10 ** (decibels / 10))).astype(np.float32)


def changed(samples: Wave, change: ChangeName, rng: np.random.Generator) -> Wave:
    """One change of a usual size: 'pitch' by U[−2, 2] semitones; 'stretch' at a rate between 1/1.25 and 1.25 and
    'speed' by a factor between 1/1.1 and 1.1, both uniform in their logarithm; 'noise' at U[10, 30] dB."""
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


def _librosa() -> Any:
    return needed("librosa", "changing waveforms")
