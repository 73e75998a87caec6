"""Libraries that only some data need: imported where they are used, and asked for by name where they are missing."""

import importlib
from typing import Any

from seqdyn.types import ConfigError

EXTRAS = {"sklearn": ("scikit-learn", "images"), "aeon": ("aeon", "series"), "dm_pix": ("dm-pix", "images")} | {
    name: (name, "audio") for name in ("librosa", "soundfile")
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
