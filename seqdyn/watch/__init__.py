"""A scan whose backward pass can be read: ‖∂L/∂carry_t‖ of any model of JAX, in two lines of its loss.

hs = watch.scan(f, init, xs, name="encoder")[1]                      # where jax.lax.scan stood
value, grads, seen = watch.value_and_grad(loss)(params, batch)       # where jax.value_and_grad stood
seen["encoder"].rms                                                  # [time]
"""

from seqdyn.watch.loss import scan as scan
from seqdyn.watch.loss import value_and_grad as value_and_grad
from seqdyn.watch.seen import Seen as Seen

__all__ = ["Seen", "scan", "value_and_grad"]
