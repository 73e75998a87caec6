"""Small real data sets that lie in the wheels of other libraries: digits, spoken vowels, two tables.

No file and no network is needed. Each is split once, a function of (labels, seed), and scaled by what its training rows
say alone.
"""

from colorsys import hsv_to_rgb
from typing import Any, Literal, get_args

import numpy as np

from seqdyn.data.arrays import array, exact, numbers
from seqdyn.data.extras import needed
from seqdyn.data.scaling import padded, scaled, standardised
from seqdyn.data.splits import stratified_split, three_way
from seqdyn.data.text import Examples
from seqdyn.types import ConfigError, Pad, one_of, whole

SPLITS = ("train", "validation", "test")


def digits(*, coloured: bool = False, ratios: Any = (0.6, 0.2, 0.2), seed: int = 0) -> dict[str, Examples]:
    """1,797 handwritten digits of 8 × 8 pixels, read row by row from the top: xs [n, 8, 8] in [0, 1], classes 0 … 9.

    Alpaydın & Kaynak 1998 (UCI: Optical Recognition of Handwritten Digits, its test part), as scikit-learn packs them.
    `coloured`: each on black in a hue of its own, drawn with the seed, whatever the digit: xs [n, 8, 24], a row's
    pixels one after the other as red, green, blue.
    """
    found = needed("sklearn.datasets", "the data set digits").load_digits()
    xs, ys = (found.images / 16).astype(np.float32), found.target.astype(np.int32)
    if coloured:
        hues = np.random.default_rng(whole("seed", seed, 0)).random(len(ys))
        paint = np.array([hsv_to_rgb(hue, 1.0, 1.0) for hue in hues], np.float32)
        xs = (xs[..., None] * paint[:, None, None]).reshape(-1, 8, 24)
    parts = dict(zip(SPLITS, three_way(ys, ratios, seed), strict=True))
    return {n: Examples(xs[rows], np.full(len(rows), 8, np.int32), ys[rows]) for n, rows in parts.items() if len(rows)}


def japanese_vowels(*, validation: float = 0.2, seed: int = 0, pad: Pad = "before") -> dict[str, Examples]:
    """Two vowels spoken by nine men, as 12 LPC cepstrum coefficients a frame: who speaks? xs [n, 29, 12], 7 to 29
    frames each, classes 0 … 8.

    Kudo, Toyama & Shimbo 1999, as aeon packs it. The official 370 test sequences stay the test split; validation is
    split off the 270 others by label. Standardised on training frames.
    """
    load = needed("aeon.datasets", "the data set japanese_vowels").load_japanese_vowels
    halves = {split: load(split=split) for split in ("train", "test")}
    steps = max(one.shape[1] for found, _ in halves.values() for one in found)

    def examples(split: str) -> Examples:
        found, speakers = halves[split]
        xs, lengths = padded([np.asarray(one.T, np.float32) for one in found], steps, pad)
        return Examples(xs, lengths, np.array([int(s) - 1 for s in speakers], np.int32))

    train, test = examples("train"), examples("test")
    rest, held = stratified_split(train.ys, validation, seed)
    splits = {"train": train, "validation": train, "test": test}
    rows = {"train": rest, "validation": held, "test": np.arange(len(test.ys))}
    return standardised({name: splits[name].take(rows[name]) for name in SPLITS}, pad)


Reading = Literal["features", "row"]


def breast_cancer(
    *, reading: Reading = "features", ratios: Any = (0.6, 0.2, 0.2), seed: int = 0
) -> dict[str, Examples]:
    """569 tumours by 30 measures of cell nuclei, class 1 benign, 0 malignant (Street, Wolberg & Mangasarian 1993;
    scikit-learn); see `table` for `reading`."""
    return table(*_packed("breast_cancer"), reading=reading, ratios=ratios, seed=seed)


def wine(*, reading: Reading = "features", ratios: Any = (0.6, 0.2, 0.2), seed: int = 0) -> dict[str, Examples]:
    """178 wines by 13 chemical measures, of three growers 0 … 2 (Aeberhard, Coomans & de Vel 1992; scikit-learn); see
    `table` for `reading`."""
    return table(*_packed("wine"), reading=reading, ratios=ratios, seed=seed)


def _packed(name: str) -> tuple[np.ndarray, np.ndarray]:
    found = getattr(needed("sklearn.datasets", f"the data set {name}"), f"load_{name}")()
    return found.data.astype(np.float32), found.target.astype(np.int32)


def table(
    rows: Any, ys: Any, *, reading: Reading = "features", ratios: Any = (0.6, 0.2, 0.2), seed: int = 0
) -> dict[str, Examples]:
    """A labelled table [n, f] as sequences, its features `scaled` to −1 … 1.

    The reading 'features' gives one feature a step, in the table's order: [n, f, 1]. 'row' gives all of them at one
    step: [n, 1, f]. Labels [n] are classes 0 … k − 1, or numbers. ConfigError for another reading, for what is no table
    of finite numbers, and for another number of labels.
    """
    one_of("reading", reading, get_args(Reading))
    rows, labels = exact("rows", rows), array("ys", ys, "classes or numbers")
    labels = labels[:, 0] if labels.shape[1:] == (1,) else labels
    if rows.ndim != 2 or not rows.size or labels.shape != rows.shape[:1]:
        raise ConfigError(f"rows has the shape {rows.shape} and ys {labels.shape}; they must be [n, f] and [n].")
    values = numbers("ys", labels)
    if (values == np.floor(values)).all() and np.abs(values).max() < 2**24:  # beyond, 32-bit floats count no more by 1
        values = values.astype(np.int32)
    parts = dict(zip(SPLITS, three_way(labels, ratios, seed), strict=True))
    xs = scaled({name: rows[kept] for name, kept in parts.items()})
    one_a_step = reading == "features"
    steps = rows.shape[1] if one_a_step else 1
    return {
        name: Examples(
            xs[name][..., None] if one_a_step else xs[name][:, None], np.full(len(kept), steps, np.int32), values[kept]
        )
        for name, kept in parts.items()
        if len(kept)
    }
