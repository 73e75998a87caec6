"""Laws of `seqdyn.norms`: NumPy's norms, over the whole range of floating point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqdyn import norms
from seqdyn.backend import compiled

norm, norm_near, rms = compiled(norms.norm), compiled(norms.norm_near), compiled(norms.rms)
tree_norm, unit = compiled(norms.tree_norm), compiled(norms.unit)
slope = compiled(jax.grad(norms.norm))

TINY = float(np.finfo(np.float32).tiny)
MAX = float(np.finfo(np.float32).max)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1,), (7,), (4, 3), (2, 3, 5)], ids=str)
def test_norm_equals_numpy(shape, dtype):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    got = norm(jnp.asarray(x))
    assert got.dtype == dtype and got.shape == shape[:-1]
    np.testing.assert_allclose(got, np.linalg.norm(x.astype(np.float64), axis=-1), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-24, 1e20, 1e30, 1e37])
def test_no_square_under_or_overflows(scale):
    x = (scale * np.random.default_rng(1).uniform(0.5, 1.5, (3, 6))).astype(np.float32)
    with np.errstate(all="ignore"):
        assert not np.any(np.isin(np.sum(np.square(x), axis=-1), [0, np.inf], invert=True))
    exact = np.linalg.norm(x.astype(np.float64), axis=-1)
    np.testing.assert_allclose(norm(jnp.asarray(x)), exact, rtol=1e-6)


@pytest.mark.parametrize(
    "x, expected",
    [
        ([MAX, 0.0], MAX),
        ([TINY, 0.0], TINY),
        ([0.0, 0.0], 0.0),
        ([-0.0], 0.0),
        ([np.inf, 1.0], np.inf),
        ([-np.inf, 0.0], np.inf),
        ([np.nan, 1.0], np.nan),
        ([np.nan, np.inf], np.nan),
    ],
)
def test_norm_of_the_largest_and_smallest_floats_zero_infinity_and_nan(x, expected):
    np.testing.assert_array_equal(norm(jnp.asarray(x, jnp.float32)), np.float32(expected))


def test_one_bad_row_leaves_the_others_alone():
    got = norm(jnp.asarray([[3.0, 4.0], [np.nan, 0.0], [np.inf, 0.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(got, [5.0, np.nan, np.inf, 0.0])


@pytest.mark.parametrize("guess", [1.0, 1e-10, 1e10], ids="{:g}x".format)
def test_norm_near_a_guess_equals_the_norm_at_every_width(guess):
    rng = np.random.default_rng(4)
    for n in range(1, 10):
        x = (1e-20 * rng.normal(size=(2, n))).astype(np.float32)
        exact = np.linalg.norm(x.astype(np.float64), axis=-1)
        near = jnp.asarray(guess * exact, jnp.float32)
        np.testing.assert_allclose(norm_near(jnp.asarray(x), near), exact, rtol=1e-6)


def test_norm_near_without_a_guess_worth_dividing_by_takes_one():
    x = jnp.asarray(np.tile(np.float32([3.0, 0.0, -4.0]), (4, 1)))
    near = jnp.asarray([0.0, np.inf, np.nan, 1.0], jnp.float32)
    np.testing.assert_allclose(norm_near(x, near), np.full(4, 5.0), rtol=1e-6)
    bad = jnp.asarray([[0.0, 0.0], [np.nan, 0.0], [-np.inf, 1.0], [0.0, 2.0]], jnp.float32)
    np.testing.assert_array_equal(norm_near(bad, jnp.ones(4, jnp.float32)), np.float32([0, np.nan, np.inf, 2]))


def test_a_norm_over_nothing_is_0_without_end_or_guess():
    nothing = jnp.zeros((4, 0))
    for found in (norm(nothing), norm_near(nothing, jnp.ones(4)), norms.tree_norm([nothing, jnp.ones(4)]) / 2 - 1):
        np.testing.assert_array_equal(found, np.zeros(np.shape(found)))
    assert norm(nothing).shape == norm_near(nothing, jnp.ones(4)).shape == (4,)


def test_unit_replaces_what_must_not_be_divided_by():
    bad = jnp.asarray([0.0, TINY / 4, np.inf, np.nan], jnp.float32)
    np.testing.assert_array_equal(unit(bad), np.ones(4, np.float32))
    good = jnp.asarray([TINY, 1e-30, 0.3, 1e30], jnp.float32)
    np.testing.assert_array_equal(unit(good), good)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_gradient_of_the_norm_is_the_unit_vector(scale):
    x = jnp.asarray([1.0, -2.0, 2.0, 0.0], jnp.float32)
    np.testing.assert_allclose(slope(scale * x), x / 3, rtol=1e-6)


def test_gradient_of_the_norm_at_zero_is_finite():
    assert np.all(np.isfinite(slope(jnp.zeros(3))))


def test_tree_norm_is_the_norm_of_all_leaves_in_one_vector():
    rng = np.random.default_rng(2)
    tree = {"a": rng.normal(size=(3, 4)), "b": (rng.normal(size=5), rng.normal(size=())), "c": None}
    flat = np.concatenate([tree["a"].ravel(), tree["b"][0], [tree["b"][1]]])
    np.testing.assert_allclose(tree_norm(jax.tree.map(jnp.asarray, tree)), np.linalg.norm(flat), rtol=1e-14)


def test_tree_norm_of_leaves_too_small_and_too_large_to_square():
    small = [jnp.full((3,), 2e-30, jnp.float32), jnp.full((1,), 2e-30, jnp.float32)]
    np.testing.assert_allclose(tree_norm(small), 4e-30, rtol=1e-6)
    np.testing.assert_allclose(tree_norm([jnp.full((4,), 1e30, jnp.float32), *small]), 2e30, rtol=1e-6)


def test_tree_norm_of_nothing_is_zero_and_of_one_nan_is_nan():
    assert float(tree_norm({})) == 0
    assert np.isnan(tree_norm([jnp.ones(3), jnp.asarray([np.nan])]))
    assert np.isinf(tree_norm([jnp.ones(3), jnp.asarray([-np.inf])]))


def test_rms_divides_by_the_examples_that_are_live():
    x = np.random.default_rng(3).normal(size=(3, 5)).astype(np.float32)
    x[1, 2:] = 0
    x[2] = 0
    got = rms(jnp.asarray(x), jnp.asarray([5, 2, 0], jnp.float32))
    expected = [np.sqrt(np.mean(x[0] ** 2)), np.sqrt(np.mean(x[1, :2] ** 2)), 0]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_rms_of_equal_readings_is_the_reading_at_any_scale():
    for scale in (1e-30, 1.0, 1e30):
        got = rms(jnp.full((1, 9), scale, jnp.float32), jnp.asarray([9.0], jnp.float32))
        np.testing.assert_allclose(got, np.float32([scale]), rtol=1e-6)
