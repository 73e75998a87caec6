"""Laws of `seqdyn.data.augment` and `images`: nothing at strength 0, functions of the key, labels and padding left
alone, and each does what its docstring says."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn.backend import compiled
from seqdyn.data import augment, extras, images
from seqdyn.data.augment import AUGMENTATIONS, augmented, by_example, from_bank
from seqdyn.data.batches import Batch
from seqdyn.data.text import Examples
from seqdyn.nets.bptt import valid_steps
from seqdyn.types import ConfigError

LENGTHS = np.array([8, 3, 5, 1, 8])
BY_KIND = {kind: [n for n, a in AUGMENTATIONS.items() if a.kind == kind] for kind in ("series", "image", "table")}
every = pytest.mark.parametrize("name", [n for names in BY_KIND.values() for n in names])
pads = pytest.mark.parametrize("pad", ["before", "after"])


def some(name, pad="before", dtype=jnp.float32, b=24):
    """A batch of the kind that the augmentation fits; padding holds a number that would be noticed."""
    rng = np.random.default_rng(0)
    if AUGMENTATIONS[name].kind == "image":
        d = 24 if name == "colour" else 8
        return Batch(jnp.asarray(rng.uniform(size=(8, b, d)), dtype), jnp.arange(b))
    mask = valid_steps(jnp.asarray(np.resize(LENGTHS, b)), 8, pad)
    xs = jnp.where(mask[..., None], jnp.asarray(rng.normal(size=(8, b, 3)), dtype), jnp.asarray(77, dtype))
    return Batch(xs, jnp.arange(b), mask)


@cache
def program(name):
    """Compiled once for all tests."""
    return compiled(lambda key, batch, strength: AUGMENTATIONS[name].apply(key, batch, strength))


def applied(name, key, batch, strength):
    return program(name)(key, batch, jnp.float32(strength))


@every
def test_at_strength_0_a_batch_comes_back_bit_for_bit(name, key):
    batch = some(name)
    batch = batch._replace(xs=batch.xs.at[-1, 0].set(-0.0))
    new = applied(name, key, batch, 0.0)
    assert np.asarray(new.xs).tobytes() == np.asarray(batch.xs).tobytes()
    assert np.asarray(applied(name, key, batch, 1.0).xs).tobytes() != np.asarray(batch.xs).tobytes()


@every
def test_a_change_is_a_function_of_the_key_and_each_example_draws_its_own(name, key):
    batch = some(name)
    batch = batch._replace(xs=jnp.repeat(batch.xs[:, :1], 24, axis=1))
    batch = batch if batch.mask is None else batch._replace(mask=jnp.ones_like(batch.mask))
    new, same, other = (applied(name, jax.random.key(s), batch, 1.0).xs for s in (1, 1, 2))
    np.testing.assert_array_equal(new, same)
    assert not np.array_equal(new, other)
    kinds = {np.asarray(new[:, i]).tobytes() for i in range(24)}
    assert len(kinds) == 2 if name.startswith("flip") else len(kinds) >= 20


@every
@pads
def test_padding_labels_lengths_and_dtype_stay(name, pad, key):
    batch = some(name, pad)
    new = applied(name, key, batch, 1.0)
    assert new.xs.dtype == jnp.float32 and np.isfinite(new.xs).all()
    np.testing.assert_array_equal(new.ys, batch.ys)
    assert (new.mask is None) == (batch.mask is None)
    if batch.mask is not None:
        mask = np.asarray(batch.mask)
        np.testing.assert_array_equal(new.mask, mask)
        np.testing.assert_array_equal(np.asarray(new.xs)[~mask], 77)
        assert np.abs(np.asarray(new.xs)[mask]).max() < 30  # nothing of the padding came in
    doubled = jax.eval_shape(program(name), key, some(name, pad, jnp.float64), jnp.float32(1))
    assert doubled.xs.dtype == jnp.float64


@pytest.mark.parametrize("name", ["time_warp", "scaling", "window"])
def test_padding_does_not_matter_to_what_is_not(name, key):
    """A sequence is changed in the same way on whichever side it is padded and with whatever."""
    before, after = some(name, "before"), some(name, "after")
    xs = np.array(after.xs)
    for i, n in enumerate(LENGTHS):
        xs[:n, i] = before.xs[8 - n :, i]
    new, other = applied(name, key, before, 1.0).xs, applied(name, key, after._replace(xs=jnp.asarray(xs)), 1.0).xs
    for i, n in enumerate(LENGTHS):
        np.testing.assert_allclose(new[8 - n :, i], other[:n, i], rtol=1e-5, atol=1e-6)


@every
def test_runs_of_a_grid_have_strengths_of_their_own(name, key):
    batch = some(name)
    grid = compiled(jax.vmap(lambda s: AUGMENTATIONS[name].apply(key, batch, s).xs))(jnp.float32([0, 0.5, 1]))
    np.testing.assert_array_equal(grid[0], batch.xs)
    np.testing.assert_allclose(grid[2], applied(name, key, batch, jnp.float32(1)).xs, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(grid[1], grid[2])


# Series


def series(n, b=400, d=2, dtype=jnp.float64):
    mask = valid_steps(jnp.full(b, n), 12, "before")
    return Batch(jnp.ones((12, b, d), dtype), jnp.zeros(b), mask)


def test_jitter_has_mean_0_and_the_stated_deviation(key):
    batch = series(9)
    noise = (applied("jitter", key, batch, 2.0).xs - batch.xs)[3:]
    assert abs(float(noise.mean())) < 3 * 0.2 / np.sqrt(noise.size)
    assert float(noise.std()) == pytest.approx(0.2, rel=0.03)
    steps = np.asarray(noise)[:, :, 0]
    assert abs(np.corrcoef(steps[0], steps[1])[0, 1]) < 0.2  # new at each step


def test_scaling_is_one_factor_a_channel_around_1(key):
    factors = applied("scaling", key, series(9), 1.0).xs[3:]
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:1], factors.shape), rtol=1e-12)
    assert float(factors[0].mean()) == pytest.approx(1, abs=0.03) and float(factors[0].std()) == pytest.approx(
        0.2, rel=0.1
    )
    assert abs(np.corrcoef(factors[0, :, 0], factors[0, :, 1])[0, 1]) < 0.2


@pads
def test_time_warp_keeps_ends_order_and_range_of_each_sequence(pad, key):
    lengths = jnp.asarray(np.resize([12, 7, 2, 1], 40))
    mask = valid_steps(lengths, 12, pad)
    ramp = jnp.cumsum(mask, axis=0, dtype=float) - 1  # 0 … n − 1 on its own valid steps
    new = np.asarray(applied("time_warp", key, Batch(ramp[..., None], jnp.zeros(40), mask), 1.0).xs)[..., 0]
    moved = 0
    for i, n in enumerate(np.asarray(lengths)):
        own = new[np.asarray(mask)[:, i], i]
        assert own[0] == 0 and own[-1] == pytest.approx(n - 1, abs=1e-12)
        assert np.all(np.diff(own) > 0)  # time never stands or runs back
        moved = max(moved, np.abs(own - np.arange(n)).max())
    assert 0.3 < moved < 8


def test_a_window_is_a_stretched_part_of_the_sequence(key):
    b, n = 200, 10
    mask = valid_steps(jnp.full(b, n), 12, "before")
    ramp = jnp.cumsum(mask, axis=0, dtype=float) - 1
    own = np.asarray(applied("window", key, Batch(ramp[..., None], jnp.zeros(b), mask), 1.0).xs)[2:, :, 0]
    np.testing.assert_allclose(np.diff(own, axis=0), np.broadcast_to(np.diff(own, axis=0)[:1], (n - 1, b)), rtol=1e-9)
    share = (own[-1] - own[0]) / (n - 1)
    assert 0.7 <= share.min() < 0.75 and 0.95 < share.max() <= 1
    assert own.min() >= 0 and own.max() <= n - 1 and own[0].max() > 1.5


# Images


def dot(row, column, size=9):
    return Batch(jnp.zeros((size, 1, size)).at[row, 0, column].set(1.0), jnp.zeros(1))


def bright(batch):
    """Where the light is, (row, column), its centre of gravity."""
    image = np.asarray(batch.xs[:, 0])
    return [float((image * at).sum() / image.sum()) for at in np.mgrid[: len(image), : len(image)]]


@pytest.fixture
def at_most(monkeypatch):
    """at_most(share): every uniform number in ±1 is drawn as this share of the most it can be."""

    def draw(share=1.0):
        program.cache_clear()
        monkeypatch.setattr(images, "_uniform", lambda key, most, shape=(): jnp.broadcast_to(share * most, shape))

    yield draw
    program.cache_clear()


def test_a_rotation_moves_a_pixel_by_its_angle_about_the_centre(at_most, key):
    at_most()
    right = dot(4, 7)  # 3 right of the centre
    quarter = applied("rotation", key, right, 3.0)  # 3 × 30°
    assert bright(quarter) == pytest.approx([1, 4], abs=1e-6)  # counter-clockwise: above the centre
    assert float(quarter.xs[1, 0, 4]) == pytest.approx(1, abs=1e-6)
    at_most(-1.0)
    assert bright(applied("rotation", key, right, 3.0)) == pytest.approx([7, 4], abs=1e-6)


def test_a_translation_moves_a_pixel_by_its_share_of_the_side_and_brings_in_darkness(at_most, key):
    at_most()
    there = applied("translation", key, dot(4, 7), 2 / 0.9)  # two pixels of nine
    assert bright(there) == pytest.approx([2, 5], abs=1e-5)
    gone = applied("translation", key, dot(0, 0), 2 / 0.9)
    assert float(jnp.abs(gone.xs).max()) < 1e-5


def test_zoom_and_crop_leave_the_centre_and_move_the_rest_in_proportion(at_most, key):
    at_most()
    factor = float(np.exp(0.25))
    for place in ((4, 4), (4, 6)):
        centre, far = bright(applied("zoom", key, dot(*place), 1.0))
        assert centre == pytest.approx(4, abs=1e-5) and far - 4 == pytest.approx((place[1] - 4) / factor, abs=0.1)
    image = Batch(jnp.ones((9, 1, 9)), jnp.zeros(1))
    np.testing.assert_allclose(applied("crop", key, image, 1.0).xs, 1, atol=1e-6)  # a part of what was there


def test_flipping_exchanges_left_and_right_of_half_the_images_at_strength_1(key):
    batch = Batch(jnp.broadcast_to(jnp.arange(8.0) / 8, (8, 400, 8)), jnp.zeros(400))
    new = np.asarray(applied("flip", key, batch, 1.0).xs)
    flipped = np.array([np.array_equal(new[:, i], batch.xs[:, i, ::-1]) for i in range(400)])
    unchanged = np.array([np.array_equal(new[:, i], batch.xs[:, i]) for i in range(400)])
    assert np.all(flipped ^ unchanged) and abs(flipped.mean() - 0.5) < 0.1


def test_a_vertical_flip_exchanges_top_and_bottom_of_half_the_images_at_strength_1(key):
    batch = Batch(jnp.broadcast_to(jnp.arange(8.0)[:, None, None] / 8, (8, 400, 8)), jnp.zeros(400))
    new = np.asarray(applied("flip_vertical", key, batch, 1.0).xs)
    flipped = np.array([np.array_equal(new[:, i], batch.xs[::-1, i]) for i in range(400)])
    unchanged = np.array([np.array_equal(new[:, i], batch.xs[:, i]) for i in range(400)])
    assert np.all(flipped ^ unchanged) and abs(flipped.mean() - 0.5) < 0.1


def test_colour_jitter_is_brightness_contrast_and_of_coloured_images_colour(at_most, key):
    rng = np.random.default_rng(0)
    grey, coloured = (Batch(jnp.asarray(rng.uniform(0.3, 0.5, (8, 3, d))), jnp.zeros(3)) for d in (8, 24))
    at_most()
    for batch, names in ((grey, ("brightness", "contrast")), (coloured, ("brightness", "contrast", "colour"))):
        wanted = batch
        for name in names:
            wanted = applied(name, key, wanted, 0.5)
        np.testing.assert_allclose(applied("colour_jitter", key, batch, 0.5).xs, wanted.xs, atol=1e-6)


def test_light_changes_as_stated_and_stays_between_0_and_1(at_most, key):
    rng = np.random.default_rng(0)
    batch = Batch(jnp.asarray(rng.uniform(0.4, 0.6, (8, 3, 8))), jnp.zeros(3))
    at_most()
    np.testing.assert_allclose(applied("brightness", key, batch, 1.0).xs, batch.xs + 0.3, rtol=1e-6)
    mean = batch.xs.mean(axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(
        applied("contrast", key, batch, 1.0).xs, mean + 1.5 * (batch.xs - jnp.broadcast_to(mean, (8, 3, 8))), rtol=1e-6
    )
    for name in ("brightness", "contrast", "noise"):
        wild = applied(name, key, batch, 20.0).xs
        assert float(wild.min()) >= 0 and float(wild.max()) <= 1


def test_noise_has_the_stated_deviation(key):
    batch = Batch(jnp.full((8, 200, 8), 0.5), jnp.zeros(200))
    noise = applied("noise", key, batch, 0.5).xs - 0.5
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02) and abs(float(noise.mean())) < 0.002


def test_colour_turns_the_hue_and_leaves_the_brightest_channel(at_most, key):
    at_most(5 / 3)  # a third of a circle; saturation at most
    red = jnp.zeros((8, 1, 8, 3)).at[..., 0].set(1.0).reshape(8, 1, 24)
    turned = np.asarray(applied("colour", key, Batch(red, jnp.zeros(1)), 1.0).xs).reshape(8, 8, 3)
    np.testing.assert_allclose(turned, np.broadcast_to([0.0, 1.0, 0.0], (8, 8, 3)), atol=1e-5)  # red → green
    rng = np.random.default_rng(0)
    batch = Batch(jnp.asarray(rng.uniform(size=(8, 4, 24))), jnp.zeros(4))
    new = applied("colour", jax.random.key(1), batch, 0.1).xs
    values = [np.asarray(x).reshape(8, 4, 8, 3).max(axis=-1) for x in (batch.xs, new)]
    np.testing.assert_allclose(*values, atol=1e-5)


def test_an_image_that_is_not_square_or_not_coloured_is_a_sentence(key):
    batch = Batch(jnp.zeros((8, 2, 9)), jnp.zeros(2))
    with pytest.raises(ConfigError, match="features is 9 and steps is 8"):
        applied("rotation", key, batch, 1.0)
    with pytest.raises(ConfigError, match="features is 8; 'colour' needs three channels"):
        applied("colour", key, Batch(jnp.zeros((8, 2, 8)), jnp.zeros(2)), 1.0)


def test_a_missing_library_is_a_sentence_that_names_its_extra(monkeypatch, key):
    def missing(name):
        raise ImportError(name)

    program.cache_clear()
    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"augmentation of images needs dm-pix: install seqdyn\[images\]\."):
        applied("rotation", key, dot(1, 1), 1.0)


# Tables


def test_a_random_subset_of_features_is_left_and_the_rest_is_0(key):
    batch = Batch(jnp.ones((30, 300, 1)), jnp.zeros(300))
    new = np.asarray(applied("feature_subset", key, batch, 1.0).xs)
    assert set(np.unique(new)) == {0, 1} and np.mean(new == 0) == pytest.approx(0.3, abs=0.02)
    assert np.std((new == 0).sum(axis=0)) > 1  # each row draws its own


def test_perturbation_has_the_stated_deviation(key):
    batch = Batch(jnp.zeros((30, 300, 1)), jnp.zeros(300))
    assert float(applied("perturbation", key, batch, 0.5).xs.std()) == pytest.approx(0.05, rel=0.03)


# Banks


def banked(pad):
    """Example i is i everywhere and of length 4; its variant k is 10 i + k, of length k + 1."""
    n, k, s = 6, 3, 5
    value = (10 * np.arange(n)[:, None] + np.arange(k))[..., None, None] + np.zeros((n, k, s, 1))
    lengths = np.broadcast_to(np.arange(k) + 1, (n, k))
    bank = Examples(value.astype(np.float32), lengths.astype(np.int32), np.arange(n, dtype=np.int32))
    rows = jnp.int32([4, 0, 2, 2])
    batch = Batch(
        jnp.broadcast_to(rows.astype(jnp.float32)[None, :, None], (s, 4, 1)),
        rows,
        valid_steps(jnp.full(4, 4), s, pad),
        rows=rows,
    )
    return batch, jax.tree.map(jnp.asarray, bank)


@compiled
def picked(key, batch, strength, bank):
    return from_bank(key, batch, strength, bank)


@pads
def test_a_bank_gives_each_example_one_of_its_own_variants_with_their_lengths(pad):
    batch, bank = banked(pad)
    draw = compiled(lambda key: from_bank(key, batch, 1.0, bank, pad))
    seen = set()
    for seed in range(20):
        new = draw(jax.random.key(seed))
        for i, row in enumerate(np.asarray(batch.rows)):
            assert len(set(np.asarray(new.xs[:, i]).ravel())) == 1
            k = int(new.xs[0, i, 0]) - 10 * row
            assert 0 <= k < 3
            np.testing.assert_array_equal(new.mask[:, i], valid_steps(jnp.int32(k + 1), 5, pad))
            seen.add((i, k))
        np.testing.assert_array_equal(new.ys, batch.ys)
    assert len(seen) == 12


def test_strength_is_the_share_of_examples_that_a_bank_replaces():
    batch, bank = banked("before")
    fresh = [np.asarray(picked(jax.random.key(s), batch, 0.3, bank).xs[0, 0, 0]) != 4 for s in range(300)]
    assert np.mean(fresh) == pytest.approx(0.3, abs=0.08)
    same = picked(jax.random.key(1), batch, 0.0, bank)
    np.testing.assert_array_equal(same.xs, batch.xs)
    np.testing.assert_array_equal(same.mask, batch.mask)


def test_a_bank_of_ids_gives_ids(key):
    batch, bank = banked("before")
    ids = batch._replace(xs=batch.xs[..., 0].astype(jnp.int32))
    new = picked(key, ids, 1.0, bank._replace(xs=bank.xs[..., 0].astype(jnp.int32)))
    assert new.xs.shape == (5, 4) and new.xs.dtype == jnp.int32
    assert np.all(np.asarray(new.xs[0]) // 10 == np.asarray(batch.rows))


# By name


def test_augmentations_follow_one_another_with_keys_of_their_own(key):
    batch = some("jitter")
    both = augmented(("jitter", "scaling"), key, batch, 1.0)
    first = by_example(augment.jitter, jax.random.fold_in(key, 0), batch, 1.0)
    np.testing.assert_array_equal(both.xs, by_example(augment.scaling, jax.random.fold_in(key, 1), first, 1.0).xs)
    twice = augmented(("jitter", "jitter"), key, batch, 1.0)
    assert float((twice.xs - batch.xs).std()) < 1.9 * float((first.xs - batch.xs).std())
    assert augmented((), key, batch, 1.0) is batch


def test_a_bank_is_taken_from_the_data_set(key):
    batch, bank = banked("after")
    new = augmented(("bank",), key, batch, 1.0, {"bank": bank}, "after")
    expected = from_bank(jax.random.fold_in(key, 0), batch, 1.0, bank, "after")
    np.testing.assert_array_equal(new.xs, expected.xs)
    np.testing.assert_array_equal(new.mask, expected.mask)
