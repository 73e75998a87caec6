"""Weights in and out: PyTorch, Keras, Flax's Linen and NNX, ONNX, and safetensors files under our own names.

    state = sd.io.to_torch(sd.trained("runs/a", run=3))                  # a state_dict
    params = sd.io.from_torch(lstm, spec)                                # of a module, or of its state_dict
    sd.run(sd.Experiment("b", spec, updates=2000), "runs/b", init=params)

Each framework is imported where it is used. What has no counterpart there is one sentence: see `stacks.stack`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from seqdyn.io.keras import from_keras as from_keras
from seqdyn.io.keras import to_keras as to_keras
from seqdyn.io.onnx import to_onnx as to_onnx
from seqdyn.io.safetensors import Saved as Saved
from seqdyn.io.safetensors import load as load
from seqdyn.io.safetensors import save as save
from seqdyn.io.torch import from_torch as from_torch
from seqdyn.io.torch import to_torch as to_torch

if TYPE_CHECKING:
    from seqdyn.io.flax import from_linen as from_linen
    from seqdyn.io.flax import from_nnx as from_nnx
    from seqdyn.io.flax import to_linen as to_linen
    from seqdyn.io.flax import to_nnx as to_nnx

__all__ = [
    "Saved",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_torch",
    "load",
    "save",
    "to_keras",
    "to_linen",
    "to_nnx",
    "to_onnx",
    "to_torch",
]


def __getattr__(name: str) -> Any:
    """What is Flax's is imported by those who use it."""
    if name in ("from_linen", "from_nnx", "to_linen", "to_nnx"):
        return getattr(importlib.import_module(f"{__name__}.flax"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
