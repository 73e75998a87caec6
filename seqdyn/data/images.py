"""Images, read row by row, changed so that what they show survives: geometry, light and colour, by dm-pix.

An image is a sequence [t, d] of rows: t × t pixels in 0 … 1, d = t × channels numbers a row, pixel by pixel. What moves
in from outside is 0, and pixels stay within 0 … 1. Strength: see each. Shorten & Khoshgoftaar 2019, "A survey on image
data augmentation for deep learning", §3, list all of them.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.data.extras import needed
from seqdyn.types import Array, ConfigError, Float


def pix() -> Any:
    """dm-pix, or ConfigError that names the extra."""
    return needed("dm_pix", "augmentation of images")


def _shown(xs: Float[Array, "t d"], change: Callable[[Array], Array]) -> Float[Array, "t d"]:
    """`change` of an image [row, column, channel], as rows again and within 0 … 1."""
    t, d = xs.shape
    if d % t:
        raise ConfigError(f"features is {d} and steps is {t}; rows of a square image have steps × channels features.")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        new = change(xs.reshape(t, t, d // t))
    return jnp.clip(new.astype(xs.dtype), 0, 1).reshape(t, d)


def _uniform(key: Any, most: Any, shape: tuple[int, ...] = ()) -> Any:
    """~ U[−most, most]"""
    return most * jax.random.uniform(key, shape, jnp.result_type(most), -1, 1)


def _moved(xs: Any, scale: Any, offset: Any) -> Any:
    """Pixel p (row, column) shows what was at centre + scale (p − centre) + offset."""

    def change(image: Array) -> Array:
        centre = jnp.asarray([(size - 1) / 2 for size in image.shape[:2]], image.dtype)
        start = jnp.concatenate([centre - scale * centre + offset, jnp.zeros(1, image.dtype)])
        factors = jnp.concatenate([jnp.full(2, scale, image.dtype), jnp.ones(1, image.dtype)])
        return pix().affine_transform(image, factors, offset=start, mode="constant")

    return _shown(xs, change)


def rotation(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """By an angle ~ U[−30°, 30°] × strength about the centre."""
    angle = _uniform(key, math.pi / 6 * strength)
    return _shown(xs, lambda image: pix().rotate(image, angle, mode="constant"))


def flip(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """Left and right exchanged, with probability strength / 2. A flipped digit is another sign: not for digits."""
    chance = jnp.minimum(strength / 2, 1)
    return _shown(xs, lambda image: pix().random_flip_left_right(key, image, probability=chance))


def flip_vertical(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """Top and bottom exchanged, with probability strength / 2: for what has no top, as cells under a microscope."""
    chance = jnp.minimum(strength / 2, 1)
    return _shown(xs, lambda image: pix().random_flip_up_down(key, image, probability=chance))


def zoom(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """About the centre, by a factor e^u, u ~ U[−0.25, 0.25] × strength: at 1 from 0.78 to 1.28."""
    return _moved(xs, jnp.exp(_uniform(key, 0.25 * strength)), jnp.zeros(2, xs.dtype))


def crop(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """A square part at a random place, its side ~ U[1 − 0.2 strength, 1] (at least a tenth) of the image's, as large as
    the whole."""
    size, place = jax.random.split(key)
    share = jnp.maximum(1 - 0.2 * strength * jax.random.uniform(size, dtype=xs.dtype), 0.1)
    return _moved(xs, share, _uniform(place, (1 - share) * (xs.shape[0] - 1) / 2, (2,)))


def translation(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """Down and across, each by ~ U[−0.1, 0.1] × strength of the side."""
    return _moved(xs, jnp.ones((), xs.dtype), _uniform(key, 0.1 * strength * xs.shape[0], (2,)))


def brightness(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """Every pixel + δ, δ ~ U[−0.3, 0.3] × strength."""
    delta = _uniform(key, 0.3 * strength)
    return _shown(xs, lambda image: pix().adjust_brightness(image, delta))


def contrast(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """Each pixel's distance to the image's mean times a factor ~ U[1 − 0.5 strength, 1 + 0.5 strength]."""
    factor = 1 + _uniform(key, 0.5 * strength)
    return _shown(xs, lambda image: pix().adjust_contrast(image, factor))


def noise(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """Each pixel + ε, ε ~ N(0, σ²), σ = 0.1 strength."""
    return jnp.clip(xs + 0.1 * strength * jax.random.normal(key, xs.shape, xs.dtype), 0, 1)


def colour(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """Hue turned by ~ U[−0.2, 0.2] × strength of a circle, saturation times ~ U[1 − 0.5 strength, 1 + 0.5 strength]: of
    images of three channels, red, green and blue."""
    if xs.shape[1] != 3 * xs.shape[0]:
        raise ConfigError(f"features is {xs.shape[1]}; 'colour' needs three channels, 3 × steps = {3 * xs.shape[0]}.")
    turning, fading = jax.random.split(key)
    turn, factor = _uniform(turning, 0.2 * strength), 1 + _uniform(fading, 0.5 * strength)
    return _shown(xs, lambda image: pix().adjust_saturation(pix().adjust_hue(image, turn), factor))


def colour_jitter(key: Any, xs: Any, mask: Any, strength: Any) -> Any:
    """`brightness`, `contrast` and, of images of three channels, `colour`, one after the other."""
    changes = (brightness, contrast, colour) if xs.shape[1] == 3 * xs.shape[0] else (brightness, contrast)
    for change, own in zip(changes, jax.random.split(key, len(changes)), strict=True):
        xs = change(own, xs, mask, strength)
    return xs


CHANGES = {
    "rotation": rotation,
    "flip": flip,
    "flip_vertical": flip_vertical,
    "zoom": zoom,
    "crop": crop,
    "translation": translation,
    "brightness": brightness,
    "contrast": contrast,
    "noise": noise,
    "colour": colour,
    "colour_jitter": colour_jitter,
}
"""All of them, by name."""
