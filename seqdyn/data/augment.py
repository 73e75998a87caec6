"""Augmentation: training sequences changed so that their labels survive, inside the compiled step.

Each is pure, `(key, batch, strength) -> batch`, and a function of its key; each example draws its own change. Strength
is a number of the grid: at 0 the batch comes back bit for bit, at 1 it is changed as much as is usual, and beyond it
more (each says how much). Labels, lengths and padding are left alone; what is padding is said by `Batch.mask`, so
without it every step counts as part of the sequence.

Series: Um et al. 2017, "Data augmentation of wearable sensor data for Parkinson's disease monitoring", and Le Guennec,
Malinowski & Tavenard 2016, "Data augmentation for time series classification using convolutional neural networks".
Tables: Ho 1998, "The random subspace method for constructing decision forests". Images are in `images`, text in
`wording`. What a compiled step cannot do is computed before it, K variants of each training example, a *bank*, from
which the step picks: `from_bank`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.data import images, wording
from seqdyn.data.tasks import BANK, Batch
from seqdyn.fields import Fields
from seqdyn.nets.bptt import valid_steps
from seqdyn.types import Array, Bool, ConfigError, Float, Key, are_words

KNOTS = 6
"""Of a random curve of speed."""

Change = Callable[[Key[Array, ""], Float[Array, "t d"], Bool[Array, " t"], Float[Array, ""]], Float[Array, "t d"]]
"""(key, one sequence, its mask, strength) -> the sequence, changed"""


def by_example(change: Change, key: Key[Array, ""], batch: Batch, strength: Float[Array, ""] | float) -> Batch:
    """`change` on each sequence of a batch with a key of its own; padding, and everything at strength 0, stays."""
    xs = batch.xs
    mask = jnp.ones(xs.shape[:2], bool) if batch.mask is None else batch.mask
    strength = jnp.asarray(strength, xs.dtype)
    keys = jax.random.split(key, xs.shape[1])
    new = jax.vmap(change, in_axes=(0, 1, 1, None), out_axes=1)(keys, xs, mask, strength)
    return batch._replace(xs=jnp.where((mask & (strength > 0))[..., None], new, xs))


# --- series -------------------------------------------------------------------------------------------------


def jitter(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """x + ε, ε ~ N(0, σ²), σ = 0.1 strength, for data of unit variance (Um et al. 2017). Of a table it is called
    'perturbation': σ is a twentieth of a range of −1 … 1."""
    return xs + 0.1 * strength * jax.random.normal(key, xs.shape, xs.dtype)


def scaling(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """Each channel times a factor ~ N(1, σ²), σ = 0.2 strength, the same at all steps (Um et al. 2017)."""
    return xs * (1 + 0.2 * strength * jax.random.normal(key, (1, xs.shape[1]), xs.dtype))


def time_warp(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """The sequence read at a speed that varies: log speed is linear between `KNOTS` knots ~ N(0, σ²), σ = 0.5 strength.

    First and last step stay, and so does the length (Um et al. 2017, who draw the speed itself around 1).
    """
    knots = 0.5 * strength * jax.random.normal(key, (KNOTS,), xs.dtype)
    step, n = _own_steps(mask, xs.dtype)
    share = step / jnp.maximum(n - 1, 1)
    speed = jnp.exp(jnp.interp(share, jnp.linspace(0, 1, KNOTS, dtype=xs.dtype), knots))
    ahead = jnp.where((step >= 0) & (step < n - 1), speed, 0)  # from each step to the next
    come = jnp.cumsum(ahead)
    total = jnp.where(come[-1] > 0, come[-1], 1)
    return _resampled(xs, mask, (come - ahead) / total * (n - 1))


def window(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """A part of the sequence, a share ~ U[1 − 0.3 strength, 1] of it (at least a tenth) from a random place, stretched
    to the length of the whole (window slicing of Le Guennec et al. 2016, theirs 90% of it)."""
    size, place = jax.random.split(key)
    share = jnp.maximum(1 - 0.3 * strength * jax.random.uniform(size, dtype=xs.dtype), 0.1)
    step, n = _own_steps(mask, xs.dtype)
    start = jax.random.uniform(place, dtype=xs.dtype) * (1 - share) * (n - 1)
    return _resampled(xs, mask, start + share * step)


def _own_steps(mask: Bool[Array, " t"], dtype: Any) -> tuple[Float[Array, " t"], Float[Array, ""]]:
    """(each step, counted from the sequence's first valid one; how many are valid)"""
    first = jnp.argmax(mask)
    return (jnp.arange(mask.shape[0]) - first).astype(dtype), jnp.sum(mask).astype(dtype)


def _resampled(xs: Float[Array, "t d"], mask: Bool[Array, " t"], at: Float[Array, " t"]) -> Float[Array, "t d"]:
    """The sequence at these (fractional) steps of its own, linear between steps."""
    last = jnp.maximum(jnp.sum(mask) - 1, 0)
    at = jnp.clip(at, 0, last.astype(at.dtype))
    below = jnp.floor(at).astype(last.dtype)
    part = (at - below.astype(at.dtype))[:, None]
    first = jnp.argmax(mask).astype(last.dtype)
    return (1 - part) * xs[first + below] + part * xs[first + jnp.minimum(below + 1, last)]


# --- tables -------------------------------------------------------------------------------------------------


def feature_subset(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """Each feature is 0, the middle of its range of −1 … 1, with probability 0.3 strength: a random subset is left (Ho
    1998 draws one for each tree of a forest)."""
    return jnp.where(jax.random.uniform(key, xs.shape, xs.dtype) < 0.3 * strength, 0, xs)


# --- banks --------------------------------------------------------------------------------------------------


def from_bank(
    key: Key[Array, ""], batch: Batch, strength: Float[Array, ""] | float, bank: Any, pad: str = "before"
) -> Batch:
    """Each example, with probability `strength`, as one of its K variants in a `tasks.BANK`, all equally likely.

    `batch.rows` says which example it is, `pad` on which side variants are padded.
    """
    picking, choosing = jax.random.split(key)
    size, k = bank.lengths.shape[0], bank.lengths.shape[1]
    rows = jnp.clip(batch.rows, 0, size - 1)
    which = jax.random.randint(choosing, rows.shape, 0, k, rows.dtype)
    drawn = jax.random.uniform(picking, rows.shape, jnp.float32) < jnp.asarray(strength, jnp.float32)
    variant = jnp.moveaxis(bank.xs[rows, which], 1, 0).astype(batch.xs.dtype)
    spread = drawn.reshape((1, -1) + (1,) * (variant.ndim - 2))
    batch = batch._replace(xs=jnp.where(spread, variant, batch.xs))
    if batch.mask is None:
        return batch
    mask = valid_steps(bank.lengths[rows, which], variant.shape[0], pad)
    return batch._replace(mask=jnp.where(drawn[None], mask, batch.mask))


# --- by name ------------------------------------------------------------------------------------------------

Kind = Literal["series", "image", "table", "text", "any"]


class Augmentation(NamedTuple):
    """One of `AUGMENTATIONS`."""

    kind: Kind
    """What data it fits, 'any' for all."""
    apply: Callable[..., Batch]
    """(key, batch, strength) -> batch"""
    of_data: bool = False
    """Does `apply` take the data set and the padded side, too: (key, batch, strength, data, pad)?"""


def _banked(key: Any, batch: Batch, strength: Any, data: Any, pad: str) -> Batch:
    return from_bank(key, batch, strength, data[BANK], pad)


def _of(kind: Kind, changes: dict[str, Change]) -> dict[str, Augmentation]:
    return {name: Augmentation(kind, partial(by_example, change)) for name, change in changes.items()}


AUGMENTATIONS: dict[str, Augmentation] = {
    **_of("series", {"time_warp": time_warp, "jitter": jitter, "scaling": scaling, "window": window}),
    **_of("image", images.CHANGES),
    **_of("table", {"feature_subset": feature_subset, "perturbation": jitter}),
    "delete": Augmentation("text", wording.delete, of_data=True),
    "swap": Augmentation("text", wording.swap, of_data=True),
    "insert": Augmentation("text", wording.insert, of_data=True),
    "insert_random": Augmentation("text", wording.insert_random, of_data=True),
    "neighbours": Augmentation("text", wording.neighbours, of_data=True),
    BANK: Augmentation("any", _banked, of_data=True),
}
"""By the names a `Spec` uses."""


def augmented(
    names: Sequence[str], key: Key[Array, ""], batch: Batch, strength: Any, data: Any = None, pad: str = "before"
) -> Batch:
    """The augmentations of these names, one after the other, each with a key of its own."""
    for i, name in enumerate(names):
        one = AUGMENTATIONS[name]
        more = (data, pad) if one.of_data else ()
        batch = one.apply(jax.random.fold_in(key, i), batch, strength, *more)
    return batch


def check(spec: Fields) -> None:
    """Raises ConfigError for augmentations that do not fit the data."""
    if not are_words(spec.augment, AUGMENTATIONS):
        raise ConfigError(f"augment is {spec.augment!r}; it must be a tuple of names among {', '.join(AUGMENTATIONS)}.")
    if spec.augment and spec.task != "labelled":
        raise ConfigError(f"augment is {spec.augment!r} for the task '{spec.task}'; it must be 'labelled'.")
    if spec.augment and spec.readout == "every":
        raise ConfigError(
            f"augment is {spec.augment!r} and readout is 'every'; it must be (), as steps would leave their labels."
        )
    if BANK in spec.augment[1:]:
        raise ConfigError(
            f"augment is {spec.augment!r}; '{BANK}' must come first, as it takes the place of a sequence."
        )
    kind = "text" if spec.vocabulary else spec.kind
    for name in spec.augment:
        fits = AUGMENTATIONS[name].kind
        if fits not in (kind, "any"):
            what = "ids, which are text" if kind == "text" else f"data of the kind '{kind}'"
            raise ConfigError(f"augment has '{name}' for {what}; it is of {fits}.")
        if fits == "image" and spec.features % spec.steps:
            raise ConfigError(
                f"augment has '{name}' and features is {spec.features}; an image has a multiple of steps, {spec.steps}."
            )
        if name == "colour" and spec.features != 3 * spec.steps:
            raise ConfigError(
                f"augment has 'colour' and features is {spec.features}; it needs three channels, {3 * spec.steps}."
            )
        if fits == "image":
            images.pix()


def check_strength(specs: Sequence[Fields], strength: Any) -> None:
    """Raises ConfigError for a strength, [r], that cannot be one of an augmentation."""
    strongest = np.max(np.asarray(strength, float))
    shares = [n for s in specs for n in s.augment if AUGMENTATIONS[n].kind in ("text", "any")]
    if strongest > 1 and shares:
        raise ConfigError(f"strength is {strongest:g}; of '{shares[0]}' it is a share and must be at most 1.")
