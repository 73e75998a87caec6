"""`flax.nnx.RNN`, watched."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flax import nnx
from flax.nnx.nn.recurrent import flip_sequences

from seqdyn.types import Array, ConfigError
from seqdyn.watch import loss
from seqdyn.watch.flax import chosen, one_step, over_time
from seqdyn.watch.loss import watching
from seqdyn.watch.seen import Seen


def value_and_grad(
    f: Callable[..., Any], *, has_aux: bool = False, reduction: str = "mean", wrt: Any = nnx.Param
) -> Callable[..., tuple[Any, Any, dict[str, Seen]]]:
    """`flax.nnx.value_and_grad` of f(model, *args), with respect to what `wrt` picks of the model, and what was read.

    (value, grads, seen), or ((value, aux), grads, seen); what else is in the model is as f leaves it. `wrt` is a filter
    as `nnx.Optimizer` takes it, for parameters of which some are frozen.
    """

    @wraps(f)
    def wrapped(model: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any, dict[str, Seen]]:
        graph, params, rest = nnx.split(model, wrt, ...)

        def pure(params: Any, rest: Any, *args: Any) -> tuple[Any, tuple[Any, Any]]:
            merged = nnx.merge(graph, params, rest, copy=True)
            out = f(merged, *args, **kwargs)
            value, aux = out if has_aux else (out, None)
            return value, (aux, nnx.split(merged, wrt, ...)[2])

        found, grads, seen = loss.value_and_grad(pure, has_aux=True, reduction=reduction)(params, rest, *args)
        value, (aux, rest) = found
        nnx.update(model, rest)
        return (value, aux) if has_aux else value, grads, seen

    return wrapped


class RNN(nnx.RNN):
    """`flax.nnx.RNN`, read by `watch.value_and_grad`: its arguments, its state, and its very self elsewhere.

    Read as `seen[label]`, in the order in which the cell takes the steps; `of`, `batch` and `adjoint` are those of
    `watch.scan`. What of the cell's state is no parameter (counts of random numbers, running statistics) goes from
    step to step. A loss that merges its model itself says `copy=True`, as under `jax.value_and_grad`.

    Raises ConfigError where it is watched with `state_axes` or `broadcast_rngs` of one's own, and what `watch.scan`
    raises.
    """

    def __init__(
        self,
        cell: Any,
        *,
        label: str = "rnn",
        of: Callable[[Any], Any] | None = None,
        batch: int | None | str = "first",
        adjoint: bool = False,
        **options: Any,
    ) -> None:
        """`options` are those of `flax.nnx.RNN`."""
        super().__init__(cell, **options)
        self.label, self.of, self.batch, self.adjoint = label, of, batch, adjoint
        self.usual = options.get("state_axes") is None and options.get("broadcast_rngs") is None

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: Any = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: Any = None,
    ) -> Any:
        """As `flax.nnx.RNN.__call__`."""
        given = {"return_carry": return_carry, "time_major": time_major, "reverse": reverse, "keep_order": keep_order}
        options = chosen(self, **given)
        if not watching():
            own: dict[str, Any] = {"initial_carry": initial_carry, "seq_lengths": seq_lengths, "rngs": rngs}
            return super().__call__(inputs, **own, **options)
        if not self.usual:
            raise ConfigError(
                f"state_axes or broadcast_rngs of the RNN {self.label!r} is given; it must not be, watched."
            )

        if initial_carry is None:
            rngs = self.rngs if rngs is None else rngs
            rngs = rngs.carry.fork() if isinstance(rngs, nnx.Rngs) else rngs
            initial_carry = self.cell.initialize_carry(one_step(self, inputs, options["time_major"]), rngs)
        graph, params, rest = nnx.split(self.cell, nnx.Param, ...)

        def step(carry: Any, rest: Any, x: Array) -> tuple[Any, Any, Any]:
            cell = nnx.merge(graph, params, rest)
            carry, y = cell(carry, x)
            return carry, nnx.split(cell, nnx.Param, ...)[2], y

        by = flip_sequences, step, initial_carry, rest
        rest, outputs = over_time(self, *by, inputs, seq_lengths, self.label, options)
        nnx.update(self.cell, rest)
        return outputs
