"""‖∂L/∂h_t‖ and ‖∂L/∂c_t‖ of `torch.nn.RNN`, `nn.LSTM` and `nn.GRU` while they train in a loop of PyTorch.

look = watch.torch.module(model.lstm, every=50, path="runs/mine", updates=1000)      # before the loop
loss.backward(); look.step(loss)                                                     # in the loop

At every 50th update hooks take the module's weights, its inputs and ∂L/∂outputs, and our own backward pass makes of
them what PyTorch's fused one does not show. The training is not touched.
"""

import math
import warnings
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from seqdyn.data.extras import needed
from seqdyn.parts import plain
from seqdyn.runs.elsewhere import Directory
from seqdyn.types import ConfigError, whole
from seqdyn.watch import torch_calls
from seqdyn.watch.seen import Seen
from seqdyn.watch.torch_calls import Begun, Reader, Reading, Taken, Tensor

torch = needed("torch", "seqdyn.watch.torch")


def module(
    rnn: Any,
    *,
    every: int = 50,
    reduction: Any = "mean",
    verify: bool = True,
    path: Any = None,
    updates: int | None = None,
    steps: int | None = None,
    task: str = "own",
    optimizer: str = "own",
    name: str = "",
    **numbers: Any,
) -> "Look":
    """Looks at the first of `every` so many updates and, with a path, at the last.

    λ_t is that of each example's own loss: `reduction` says that the loss is the 'mean' over the batch of a call, or
    the 'sum', or is the number of examples that it is the mean over (all of those whose gradients accumulate). The
    calls between two `look.step()` are one update; each sequence of each is an example, and those without a gradient
    are not looked at. L is what `backward()` was called of, the factor of a `GradScaler` in it.

    At the first look our ∂L/∂weights are held against PyTorch's, unless `verify` is False: they differ where the
    weights enter a loss by another way, too, as by a penalty.

    `path`, a new or empty directory, has the records of a run of `updates` updates: `seqdyn.load(path)`. Of sequences
    longer than `steps` (None: than those of the first look) the last steps are recorded. What is known of the run is
    noted there: one of seqdyn's words for its `task`, as 'adding', the `optimizer`, a `name` for figures, and numbers
    of `seqdyn.Numbers`, as lr=1e-3, seed=0, clip=1.0. Unless said, clip is infinite, gain is that of uniform recurrent
    matrices as large as those of the first look, and others are NaN.

    Raises ConfigError for another module, for projections, for a `path` that holds something, and for what cannot be.
    """
    if not _fused(rnn):
        own = [label for label, m in rnn.named_modules() if _fused(m)] if isinstance(rnn, torch.nn.Module) else []
        has = f" (this one has {', '.join(own)})" if own else ""
        raise ConfigError(f"module is {type(rnn).__name__}; it must be torch.nn's RNN, LSTM or GRU{has}.")
    if rnn.proj_size:
        raise ConfigError(f"proj_size is {rnn.proj_size}; it must be 0: an LSTM with projections is not looked at.")
    every, reduction = whole("every", every), plain(reduction)
    if not _positive(reduction) and not (isinstance(reduction, str) and reduction in ("mean", "sum")):
        right = "'mean', 'sum' or the number of examples that the loss is the mean over"
        raise ConfigError(f"reduction is {reduction!r}; it must be {right}.")
    words = {"task": task, "optimizer": optimizer, "name": name}
    for field, word in words.items():
        if not isinstance(word, str):
            raise ConfigError(f"{field} is {word!r}; it must be a string.")
    if path is None:
        for field, value in ({"updates": updates, "steps": steps} | numbers).items():
            if value is not None:
                raise ConfigError(f"{field} is {value!r} without path; leave it out where nothing is recorded.")
        return Look(rnn, every, reduction, verify)
    if updates is None:
        raise ConfigError("updates is None beside path; it must be how many updates the loop will make.")
    steps = None if steps is None else whole("steps", steps)
    numbers = {"clip": math.inf} | {field: plain(value) for field, value in numbers.items()}
    directory = Directory(path, updates, every, numbers)
    return Look(rnn, every, reduction, verify, directory, steps, words)


def _fused(module: Any) -> bool:
    return isinstance(module, torch.nn.RNN | torch.nn.LSTM | torch.nn.GRU)


def _positive(value: Any) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and 0 < float(value) < math.inf


class Look:
    """What `module` returns. The first look is waited for; later ones are made beside the loop, and are there at the
    latest when they are asked for."""

    def __init__(
        self,
        rnn: Any,
        every: int,
        reduction: str | float,
        verify: bool,
        directory: Directory | None = None,
        steps: int | None = None,
        words: Any = None,
    ) -> None:
        """See `module`."""
        self._every, self._reduction, self._verify = every, reduction, verify
        self._directory, self._steps, self._words = directory, steps, words
        self._made, self._due, self._random, self._reader = 0, True, None, Reader()
        self._calls: list[Taken] = []
        self._gradients: dict[str, Tensor] = {}
        self._of_weights: list[tuple[Tensor, Any]] = []
        self._error: float | None = None
        self._read: Reading | None = None
        self._shown: tuple[tuple[Seen, ...], ...] = ()
        self._begun: list[_Begun] = []
        self._rnn, self._hooks, self._open = rnn, [], True
        if directory is not None:
            directory.before_writing = self._end
        self._hook()

    def _hook(self) -> None:
        """Hooks are there while an update is looked at: one that does nothing would take a hundredth of a small
        module's time."""
        if self._due and not self._hooks:
            self._hooks = [self._rnn.register_forward_hook(_Hook(self._after), with_kwargs=True)]
            if self._rnn.dropout:
                self._hooks.append(self._rnn.register_forward_pre_hook(_Hook(self._before)))
        elif self._hooks and not self._due:
            self._unhook()

    def _unhook(self) -> None:
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook.remove()

    @property
    def seen(self) -> tuple[Seen, ...]:
        """‖∂L/∂h_t‖ at the latest look, [time, b] in the order of the steps, of each layer in the order of PyTorch's
        h_n: of a bidirectional level its two directions."""
        return self._parts[0]

    @property
    def seen_c(self) -> tuple[Seen, ...]:
        """‖∂L/∂c_t‖ with h_t held fixed, of an LSTM."""
        return self._parts[1]

    @property
    def _parts(self) -> tuple[tuple[Seen, ...], ...]:
        self._end()
        if not self._shown and self._read is not None:
            self._shown = tuple(_seen(self._read, part) for part in range(len(self._read.whole)))
        return (*self._shown, (), ())

    def _before(self, rnn: Any, args: Any) -> None:
        if torch_calls.dropping(rnn):
            self._random = torch.get_rng_state()

    def _after(self, rnn: Any, args: Any, kwargs: Any, output: Any) -> None:
        x, first = (*args, *(kwargs[key] for key in ("input", "hx") if key in kwargs), None, None)[:2]
        first = tuple(first) if isinstance(first, tuple | list) else () if first is None else (first,)
        data = torch_calls.data(output[0] if isinstance(output, tuple) and output else output)
        if torch.is_tensor(data) and not (data.requires_grad and data.numel()):
            return
        if not torch_calls.is_usual(rnn, x, first, output):
            return self._fault(
                "the module takes or returns something else than PyTorch's own; it must be called as (x) or (x, state) "
                "and return (outputs, last state), of an LSTM (outputs, (h_n, c_n))."
            )
        outputs, last = output
        if torch_calls.dropping(rnn) and data.device.type != "cpu":
            where = f"dropout is {rnn.dropout} between layers on {data.device.type!r}"
            return self._fault(f"{where}; it must be 0 there: watch a module for each layer, nn.Dropout between them.")
        taken = Taken(rnn, x, first, outputs, self._random)
        taken.hook("outputs", data)
        for name, state in zip("hc", last if isinstance(last, tuple) else (last,), strict=False):
            taken.hook(name, state)
        if self._verify:
            self._take_gradients(rnn)
        self._calls.append(taken)

    def _take_gradients(self, rnn: Any) -> None:
        """Of the weights of a call, which may be others than those of the call before."""
        if not self._calls:
            self._let_gradients_go()

        def add(name: str, grad: Tensor | None) -> None:
            if grad is not None:
                self._gradients[name] = self._gradients.get(name, 0) + grad.detach()

        for name, weight in torch_calls.weights(rnn).items():
            if weight.requires_grad and not any(weight is other for other, _ in self._of_weights):
                self._of_weights.append((weight, weight.register_hook(partial(add, name))))

    def _let_gradients_go(self) -> None:
        for _, hook in self._of_weights:
            hook.remove()
        self._of_weights, self._gradients = [], {}

    def step(self, loss: Any = None) -> None:
        """Once an update, after `loss.backward()`, before or after the optimizer's step; the `loss` is recorded.

        Raises ConfigError where the first look cannot be; a later one that cannot be is left out, with a warning.
        """
        value = math.nan if loss is None else _number(loss)
        row: dict[str, Any] = {"recorded": True, "finite": loss is None or math.isfinite(value), "loss": value}
        taken = self._taken() if self._calls else []
        if taken:
            found = [self._reader.begin(call, bool(self._gradients)) for call in taken]
            self._begun.append(_Begun(taken[0].layers, taken[0].tolerance, found, row))
            if self._read is None or self._gradients:  # which the next look would take anew
                self._end(taken[0])
            elif sum(one.numbers for begun in self._begun for one in begun.found) > _HELD:
                self._end()
        if self._directory is not None:
            self._directory.add(row)
        self._made += 1
        # An update without a call leaves the look to the next.
        last = self._directory is not None and self._made == self._directory.updates - 1
        self._due = last or self._made % self._every == 0 or (self._due and not taken)
        if self._due != bool(self._hooks) and self._open:
            self._hook()

    def _taken(self) -> list[Taken]:
        """The calls of this update that have gradients."""
        calls, self._calls = self._calls, []
        taken = [call for call in calls if call.d]
        if not taken:
            self._fault("look.step() came without loss.backward(); it must come after it.")
        return taken

    def test(self, loss: Any) -> None:
        """The loss on held-out examples, now: `test_loss` of the records."""
        if self._directory is None:
            raise ConfigError("path is None; it must be given where a test loss is to be recorded.")
        self._directory.test(self._made, _number(loss))

    def close(self) -> None:
        """Takes the hooks away and writes what is left; the end of the process writes it, too."""
        was, self._open = self._open, False
        self._unhook()
        self._let_gradients_go()
        self._end()
        if was and self._made and self._read is None:
            warnings.warn("nothing was seen: the module was not called in any update with a gradient.", stacklevel=2)
        if was and self._directory is not None:
            self._directory.close()

    def _fault(self, sentence: str) -> None:
        if self._read is None:
            self.close()
            raise ConfigError(sentence)
        warnings.warn(f"{sentence} This look is left out.", stacklevel=4)

    def _end(self, first: Taken | None = None) -> None:
        """Ends the looks that were begun: their rows have what was read. Of the first one, its call."""
        begun, self._begun = self._begun, []
        checked = [(one, reading) for one in begun if (reading := self._checked(one)) is not None]
        if not checked:
            return
        self._read, self._shown = checked[-1][1], ()
        if self._directory is None:
            return
        if first is not None and not self._directory.described:
            self._describe(self._read, first)
        assert self._steps is not None
        found = torch_calls.records([reading for _, reading in checked], self._steps, begun[0].layers.directions)
        for (one, _), norms in zip(checked, found, strict=True):
            one.row.update(norms)

    def _checked(self, begun: "_Begun") -> Reading | None:
        readings, found = [], [one.found() for one in begun.found]
        for one in found:
            if one.apart > begun.tolerance:
                self._fault(
                    f"the outputs of the module are {one.apart:.1e} away from those of its weights and inputs; its "
                    "forward must be PyTorch's own, without hooks that change what it returns."
                )
                return None
            factor = {"mean": len(one.reading.lengths), "sum": 1.0}.get(self._reduction, self._reduction)  # type: ignore
            readings.append(one.reading.times(float(factor)))
        ours = {name: sum(one.weights[name] for one in found) for name in self._gradients}
        if ours and not self._agrees(ours, begun.tolerance):
            return None
        return torch_calls.beside(readings)

    def _agrees(self, ours: dict[str, Any], tolerance: float) -> bool:
        name, apart = torch_calls.furthest(ours, self._gradients)
        self._let_gradients_go()
        if math.isnan(apart):
            return True  # diverged: there is nothing to compare
        self._verify, self._error = False, apart
        if apart > tolerance:
            self._fault(
                f"∂L/∂{name} of our backward pass is {apart:.1e} away from PyTorch's (at most {tolerance:g} is right): "
                "the loss must reach the weights through calls of the module alone; verify=False looks at these."
            )
        return apart <= tolerance

    def _describe(self, reading: Reading, taken: Taken) -> None:
        layers, directory = taken.layers, self._directory
        assert directory is not None
        if self._steps is None:
            self._steps = reading.exponent.shape[1]
        words = self._words | {
            "cell": layers.kind,
            "activation": layers.activation,
            "hidden": [layers.hidden] * layers.levels,
            "bidirectional": layers.directions == 2,
            "steps": self._steps,
            "batch": len(reading.lengths),
            "w_init": "uniform",
            "u_init": "uniform",
        }
        notes = {"watched": "torch.nn", "every": self._every, "reduction": str(self._reduction)}
        norms = torch_calls.records([reading], self._steps, layers.directions)[0]
        names = ("loss", "test_loss", "clipped", "finite", "recorded", *norms)
        about = {"versions": {"torch": torch.__version__}, "error": self._error}
        directory.describe(words, torch_calls.gain(taken.weights), names, notes, **about)


_HELD = 2**21
"""Numbers of looks that are on their way: about so many wait for those that come after them."""


class _Begun(NamedTuple):
    """A look on its way."""

    layers: torch_calls.Layers
    tolerance: float
    found: list[Begun]
    row: dict[str, Any]
    """The records of its update."""


def _seen(reading: Reading, part: int) -> tuple[Seen, ...]:
    fields = [reading.whole[part], reading.exponent, reading.from_next[part]]
    layers = zip(*(map(jnp.asarray, field) for field in fields), strict=True)
    return tuple(Seen(m, e, near, count=jnp.asarray(reading.count, m.dtype)) for m, e, near in layers)


def _number(loss: Any) -> float:
    try:
        return float(loss.item() if torch.is_tensor(loss) else loss)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"loss is {' '.join(repr(loss).split()):.80}; it must be one number.") from None


class _Hook:
    """A hook that copies of the module, in memory or on disk, have as one that does nothing."""

    def __init__(self, function: Any) -> None:
        self._function = function

    @torch.compiler.disable  # a model that is compiled calls its recurrent modules as they are, and their hooks so, too
    def __call__(self, *args: Any) -> None:
        self._function(*args)

    def __reduce__(self) -> Any:
        return _Hook, (_nothing,)


def _nothing(*args: Any) -> None:
    return None
