"""What people bring, as arrays: lists, Series, tensors. What has one meaning is cast, what has none is a sentence."""

from numbers import Number
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32, Shaped

from seqdyn.types import ConfigError

LARGEST = float(np.finfo(np.float32).max)


def array(where: str, value: Any, right: str) -> np.ndarray:
    """`value` as an array of booleans, whole numbers, floats or strings, whatever holds it.

    ConfigError, naming `where` and what is `right`, for what is ragged, masked, or of another type (None, say).
    """
    if isinstance(value, set | frozenset | dict | str | bytes):
        raise ConfigError(f"{where} is a {type(value).__name__}; it must be {right}.")
    given = value
    try:
        value = from_tensor(where, value)
        if isinstance(value, list | tuple) and value and hasattr(value[0], "detach"):
            value = [from_tensor(where, one) for one in value]
        found = np.asarray(value)
        if found.dtype.kind in "OT" and found.ndim:  # a column of words or of lists, as pandas and pyarrow have them
            found = np.asarray(value := _unpacked(found))
        if found.dtype == object and not found.ndim and not isinstance(found.item(), Number):  # None, a generator, …
            shown = " ".join(repr(value).split())
            raise ConfigError(f"{where} is {shown:.60}; it must be {right}.")
        if found.dtype.kind in "OSU" and not isinstance(value, np.ndarray):
            _of_one_kind(where, np.asarray(value, object).ravel().tolist(), right)
        if found.dtype == object:  # decimals, fractions
            found = found.astype(np.float64)
    except ConfigError:
        raise
    except Exception as error:  # a list is ragged, a tensor on another device: each library has its own
        raise ConfigError(f"{where} is no array ({' '.join(str(error).split())}); it must be {right}.") from None
    if _masked(given) or (value is not given and _masked(value)):
        raise ConfigError(f"{where} has masked entries; it must be {right}.")
    for kind, wide in ((np.floating, np.float32), (np.integer, np.int32)):  # bfloat16, int4 and their like
        if found.dtype.kind == "V" and jnp.issubdtype(found.dtype, kind):
            found = found.astype(wide)
    if found.dtype.kind not in "biufSU":
        raise ConfigError(f"{where} has the type {found.dtype}; it must be {right}.")
    return found


def _masked(value: Any) -> bool:
    """Is an entry masked, in any of the lists within lists?"""
    if isinstance(value, list | tuple):
        may = (list, tuple, np.ma.MaskedArray)
        return any(issubclass(kind, may) for kind in set(map(type, value))) and any(map(_masked, value))
    return isinstance(value, np.ma.MaskedArray) and bool(np.ma.is_masked(value))


def from_tensor(where: str, value: Any) -> Any:
    """A tensor of PyTorch as NumPy's, off its device and without its gradient, bfloat16 in 32 bits; anything else as it
    is. ConfigError, naming `where`, for one that NumPy cannot hold."""
    if not hasattr(value, "detach"):
        return value
    try:
        return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy(force=True)
    except (TypeError, RuntimeError, AttributeError) as error:  # on no device, sparse, nested, quantized
        why = " ".join(str(error).split())
        raise ConfigError(f"{where} is a tensor that is no array ({why}); it must be a dense one of numbers.") from None


def _unpacked(value: Any) -> Any:
    """Lists in place of the arrays of objects in it: columns of lists of lists."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OT" and value.ndim:
        value = value.tolist()
    return [_unpacked(one) for one in value] if isinstance(value, list) else value


def _of_one_kind(where: str, values: list[Any], right: str) -> None:
    """Refuses what NumPy would write as words: ['a', None], ['a', nan], ['a', 1]."""
    kind = next((k for k in (str, bytes) if values and isinstance(values[0], k)), (Number, np.bool))
    odd = next((i for i, v in enumerate(values) if not isinstance(v, kind)), None)
    if odd is not None:
        raise ConfigError(f"{where} has {values[odd]!r:.40} at place {odd}; it must be {right}, all of one type.")


def numbers(where: str, value: Any, finite: str = "finite") -> Float32[np.ndarray, "..."]:
    """`value` as 32-bit floats. ConfigError for words, and, naming the first, for Inf, NaN and what is larger."""
    return exact(where, value, finite).astype(np.float32, copy=False)


def exact(where: str, value: Any, finite: str = "finite") -> Shaped[np.ndarray, "..."]:
    """`value` as it is, where `numbers` takes it: of 64 bits, before anything is subtracted."""
    found = array(where, value, "numbers")
    if found.dtype.kind not in "biuf":
        raise ConfigError(f"{where} has the type {found.dtype}; it must be numbers.")
    first_wrong(where, found, ~np.isfinite(found), finite)
    with np.errstate(over="ignore"):
        cast = found.astype(np.float32, copy=False)
    first_wrong(where, found, ~np.isfinite(cast), f"at most {LARGEST:.2g} in size, as 32-bit floats are")
    return found


def whole_numbers(where: str, value: Any, least: int, most: int, right: str) -> Int32[np.ndarray, "..."]:
    """`value` as whole numbers from `least` to `most`, floats among them if they are whole (2.0). ConfigError for
    words, and, naming the first, for what is not whole or out of range."""
    found = array(where, value, right)
    if found.dtype.kind not in "biuf":
        raise ConfigError(f"{where} has the type {found.dtype}; it must be {right}.")
    inside = (found >= least) & (found <= most)
    first_wrong(where, found, ~inside | (found != np.floor(found)), right)
    return found.astype(np.int32, copy=False)


def step_counts(where: str, value: Any, steps: int) -> Int32[np.ndarray, "..."]:
    """How many steps of each sequence are not padding, from 1 to `steps`. ConfigError for others, and for a mask."""
    right = f"a whole number between 1 and steps, {steps}"
    found = array(f"lengths {where}", value, right)
    if found.dtype.kind == "b":
        raise ConfigError(f"lengths {where} has the type bool, as a mask has; it must be {right}.")
    return whole_numbers(f"lengths {where}", found, 1, steps, right)


def first_wrong(where: str, found: np.ndarray, wrong: np.ndarray, right: str) -> None:
    """Raises ConfigError for the first wrong entry, naming its value and its example."""
    if wrong.any():
        at = np.unravel_index(int(wrong.argmax()), wrong.shape)
        example = f" in example {at[0]}" if at else ""
        raise ConfigError(f"{where} has {found[at].item()!r}{example}; it must be {right}.")


def three(where: str, examples: Any) -> tuple[Any, Any, Any]:
    """(xs, lengths, ys) of what holds these three; ConfigError for anything else."""
    if not isinstance(examples, tuple | list) or len(examples) != 3:
        what = f"{type(examples).__name__}" + (f" of {len(examples)}" if isinstance(examples, tuple | list) else "")
        raise ConfigError(f"{where} is a {what}; it must be (xs, lengths, ys).")
    return examples[0], examples[1], examples[2]


def plain_json(value: Any) -> Any:
    """The same with NumPy's numbers and arrays, wherever they lie, as JSON has them."""
    if isinstance(value, dict):
        return {key: plain_json(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(v) for v in value]
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
