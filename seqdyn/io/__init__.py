"""Weights in and out: PyTorch, Keras, Flax's Linen and NNX, ONNX, and safetensors files under our own names.

    state = sd.io.to_torch(sd.trained("runs/a", run=3))                  # a state_dict
    params = sd.io.from_torch(lstm, spec)                                # of a module, or of its state_dict
    sd.run(sd.Experiment("b", spec, updates=2000), "runs/b", init=params)

Each framework is imported where it is used. What has no counterpart there is one sentence: see `stacks.stack`.
"""

from seqdyn.io.safetensors import Saved as Saved
from seqdyn.io.safetensors import load as load
from seqdyn.io.safetensors import save as save
from seqdyn.io.torch import from_torch as from_torch
from seqdyn.io.torch import to_torch as to_torch

__all__ = ["Saved", "from_torch", "load", "save", "to_torch"]
