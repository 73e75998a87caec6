"""Libraries that only some data need: imported where they are used, and asked for by name where they are missing."""

import importlib
from typing import Any

from seqdyn.types import ConfigError

EXTRAS = {
    "aeon": ("aeon", "series"),
    "dm_pix": ("dm-pix", "images"),
    "keras": ("keras", "keras"),
    "librosa": ("librosa", "audio"),
    "nltk": ("nltk", "text"),
    "onnx": ("onnx", "onnx"),
    "sklearn": ("scikit-learn", "images"),
    "soundfile": ("soundfile", "audio"),
    "tensorboardX": ("tensorboardX", "tensorboard"),
    "torch": ("torch", "torch"),
    "trackio": ("trackio", "trackio"),
    "wandb": ("wandb", "wandb"),
}
"""module → (the library's name, the extra of seqdyn that brings it)"""


def needed(module: str, what: str) -> Any:
    """The module of this dotted name; where its library is not installed ConfigError, saying that `what` needs it and
    which extra brings it."""
    library, extra = EXTRAS[module.partition(".")[0]]
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"{what} needs {library}: install seqdyn[{extra}].") from None
