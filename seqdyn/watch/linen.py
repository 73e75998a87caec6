"""`flax.linen.RNN`, watched."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from flax.linen.recurrent import flip_sequences

from seqdyn.types import Array, ConfigError
from seqdyn.watch.flax import chosen, one_step, over_time
from seqdyn.watch.loss import watching


class RNN(nn.RNN):
    """`flax.linen.RNN`, read by `watch.value_and_grad`: its arguments, its parameters, and its very self elsewhere.

    Read as `seen[name]`, name being `label` or the path of the module in the model, 'RNN' where it is the model.
    Readings are in the order in which the cell takes the steps. `of`, `batch` and `adjoint` are those of `watch.scan`.

    Raises ConfigError where it is watched with a `variable_axes`, `variable_broadcast`, `variable_carry` or
    `split_rngs` of one's own, and what `watch.scan` raises.
    """

    label: str | None = None
    of: Callable[[Any], Any] | None = None
    batch: int | None | str = "first"
    adjoint: bool = False

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: Any = None,
        init_key: Any = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """As `flax.linen.RNN.__call__`."""
        given = {"return_carry": return_carry, "time_major": time_major, "reverse": reverse, "keep_order": keep_order}
        options = chosen(self, **given)
        if not watching() or self.is_initializing():
            own: dict[str, Any] = {"initial_carry": initial_carry, "init_key": init_key, "seq_lengths": seq_lengths}
            return super().__call__(inputs, **own, **options)
        for field in ("variable_axes", "variable_broadcast", "variable_carry", "split_rngs"):
            if (own := getattr(self, field)) != (usual := nn.RNN.__dataclass_fields__[field].default):
                raise ConfigError(f"{field} of a watched RNN is {own!r}; it must be as it is in Flax, {usual!r}.")

        if initial_carry is None:
            shape = one_step(self, inputs, options["time_major"])
            key = jax.random.key(0) if init_key is None else init_key
            initial_carry = self.cell.initialize_carry(key, shape)
        cell, variables = self.cell.unbind()
        params = {"params": variables.get("params", {})}

        def step(carry: Any, state: None, x: Array) -> tuple[Any, None, Any]:
            carry, y = cell.apply(params, carry, x)
            return carry, None, y

        name = self.label or "/".join(self.path) or "RNN"
        return over_time(self, flip_sequences, step, initial_carry, None, inputs, seq_lengths, name, options)[1]
