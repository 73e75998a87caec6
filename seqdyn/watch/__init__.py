"""A scan whose backward pass can be read: ‖∂L/∂carry_t‖ of any model of JAX, in two lines of its loss.

hs = watch.scan(f, init, xs, name="encoder")[1]                      # where jax.lax.scan stood
value, grads, seen = watch.value_and_grad(loss)(params, batch)       # where jax.value_and_grad stood
seen["encoder"].rms                                                  # [time]

RNNs of Flax: `watch.linen.RNN`, `watch.nnx.RNN`. Those of PyTorch, in a loop of PyTorch: `watch.torch.module`. The same
f under the probes of `seqdyn.measure`: `watch.probed`.
"""

import importlib
from types import ModuleType

from seqdyn.watch.loss import scan as scan
from seqdyn.watch.loss import value_and_grad as value_and_grad
from seqdyn.watch.probed import probed as probed
from seqdyn.watch.seen import Seen as Seen

__all__ = ["Seen", "probed", "scan", "value_and_grad"]


def __getattr__(name: str) -> ModuleType:
    """What needs Flax's modules or PyTorch is imported by those who use it."""
    if name in ("linen", "nnx", "torch"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
