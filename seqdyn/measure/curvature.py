"""Curvature of the loss where the parameters stand, and the noise of its gradient.

With g = ∇L and H = ∇²L of the mean loss over a batch, over all parameters, penalties left out:

    sharpness               λ_max(H), the algebraically largest eigenvalue (not the largest modulus): gradient descent
                            at rate η is unstable along its eigenvector once λ_max > 2/η (Cohen et al. 2021, §2)
    directional sharpness   gᵀHg / ‖g‖², the curvature along the next step of gradient descent
    noise scale             tr Σ / ‖G‖², the batch size at which one step's noise equals its signal; Σ is the covariance
                            of one example's gradient and G its mean (McCandlish et al. 2018, eq. 2.9)
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from seqdyn.data.tasks import Batch
from seqdyn.learn import model
from seqdyn.learn.spec import Spec
from seqdyn.learn.train import TrainState
from seqdyn.measure.view import View
from seqdyn.norms import norm, tree_norm
from seqdyn.types import Array, Float, Key, Metrics, Params, Tree

PRODUCTS = 12
"""Hessian-vector products a look spends on the extreme eigenvalues. On the adding problem (T 100, H 64, three cells,
before and along training) the largest was right to 1e-6, of which `error` tells, and the least to 4%."""


class Extremes(NamedTuple):
    """The ends of a symmetric matrix's spectrum, as far as its Krylov space knows them."""

    largest: Float[Array, ""]
    """Algebraically largest eigenvalue; never above the true one."""
    error: Float[Array, ""]
    """Some eigenvalue lies within this of `largest`: ‖H y − θ y‖ of its unit Ritz vector, at least the rounding."""
    least: Float[Array, ""]
    """Algebraically least eigenvalue; never below the true one."""
    least_error: Float[Array, ""]
    """The same bound for `least`."""


class Noise(NamedTuple):
    """The gradient's noise over examples, without bias. McCandlish et al. 2018, appendix A.1, B_small = 1."""

    scale: Float[Array, ""]
    """tr Σ / ‖G‖², in examples; NaN where the estimate of ‖G‖² is not positive."""
    gradient_square: Float[Array, ""]
    """‖G‖² of the expected gradient: ‖ḡ‖² − tr Σ / B, negative where noise drowns it."""
    gradient_variance: Float[Array, ""]
    """tr Σ = Σ_b ‖g_b − ḡ‖² / (B − 1)."""


def hessian_product(loss: Callable[[Params], Array], params: Params) -> Callable[[Tree], Tree]:
    """v -> H v with H = ∇²loss at `params`, by transposing the gradient: (∂g/∂p)ᵀ v, which symmetry makes H v.

    All that does not depend on v is computed once, here. Reverse mode twice: `unroll` allows no forward mode.
    """
    transpose = jax.vjp(jax.grad(loss), params)[1]
    return lambda v: transpose(v)[0]


def lanczos(product: Callable[[Tree], Tree], like: Tree, key: Key[Array, ""], products: int = PRODUCTS) -> Extremes:
    """The extreme eigenvalues of the symmetric matrix v -> product(v), v of the structure of `like`.

    Lanczos' recurrence from a Gaussian vector with full reorthogonalisation, twice (Parlett 1998, §6.9, §13.8), and
    the ends of its tridiagonal matrix. It holds products + 1 vectors. The bounds come from the iteration; they
    cannot see an eigenvector that the start happens to be orthogonal to. NaN if a product is not finite.

    (Our own, since matfree's divides by a residual of 0 once the Krylov space is exhausted, and a network of dead
    units, whose Hessian has rank 1, exhausts it in two steps: 48 or NaN where 2 is right.)
    """
    flat, unflatten = ravel_pytree(like)
    count, eps = min(products, flat.size), jnp.finfo(flat.dtype).eps
    first = jax.random.normal(key, flat.shape, flat.dtype)
    basis = jnp.zeros((count + 1, flat.size), flat.dtype).at[0].set(first / norm(first))

    def body(state: Any, k: Array) -> Any:
        basis, size, going = state
        w = ravel_pytree(product(unflatten(basis[k])))[0]
        alpha, size = basis[k] @ w, jnp.maximum(size, norm(w))
        for _ in range(2):
            w = w - (basis @ w) @ basis
        beta = norm(w)
        ends = beta <= 10 * eps * size  # an invariant subspace: what is left is rounding, and so is its direction
        basis = basis.at[k + 1].set(jnp.where(ends, 0, w / jnp.where(ends, 1, beta)))
        return (basis, size, going & ~ends), (alpha, jnp.where(ends, 0, beta), going)

    start = (basis, jnp.zeros((), flat.dtype), jnp.bool_(True))
    (_, size, _), (alphas, betas, going) = jax.lax.scan(body, start, jnp.arange(count))
    alphas = jnp.where(going, alphas, alphas[0])  # no end of the spectrum: it is a mean of the eigenvalues
    matrix = jnp.diag(alphas) + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
    finite = jnp.all(jnp.isfinite(matrix))
    values, vectors = jnp.linalg.eigh(jnp.where(finite, matrix, 0))
    errors = jnp.maximum(betas[-1] * jnp.abs(vectors[-1]), eps * size)
    ends = Extremes(values[-1], errors[-1], values[0], errors[0])
    return jax.tree.map(lambda x: jnp.where(finite, x, jnp.nan), ends)


def sharpness(
    loss: Callable[[Params], Array], params: Params, key: Key[Array, ""], products: int = PRODUCTS
) -> Extremes:
    """The largest (and the least) eigenvalue of ∇²loss at `params`. See `lanczos`; products cost two gradients each."""
    return lanczos(hessian_product(loss, params), params, key, products)


def directional_sharpness(product: Callable[[Tree], Tree], grads: Tree) -> Float[Array, ""]:
    """gᵀHg / ‖g‖² of a `hessian_product` and the gradient there; NaN where g is 0."""
    size = tree_norm(grads)
    along = jax.tree.map(lambda g: g / size, grads)
    parts = jax.tree.map(jnp.vdot, along, product(along))
    return jnp.sum(jnp.stack(jax.tree.leaves(parts)))


def noise_scale(loss: Callable[[Params, Any], Array], params: Params, examples: Tree) -> Noise:
    """The noise scale from the gradients of loss(params, example), one example after another along the leading axis.

    NaN for one example alone. Running means (Welford 1962) keep two gradients at a time and cancel no digits.
    """

    def body(state: Any, inputs: Any) -> Any:
        mean, total = state
        n, example = inputs
        off = jax.tree.map(jnp.subtract, jax.grad(loss)(params, example), mean)
        mean = jax.tree.map(lambda m, d: m + d / n, mean, off)
        return (mean, total + jnp.square(tree_norm(off)) * (1 - 1 / n)), None

    count = jax.tree.leaves(examples)[0].shape[0]
    dtype = jax.tree.leaves(params)[0].dtype
    start = (jax.tree.map(jnp.zeros_like, params), jnp.zeros((), dtype))
    (mean, total), _ = jax.lax.scan(body, start, (1 + jnp.arange(count, dtype=dtype), examples))
    variance = total / (count - 1) if count > 1 else jnp.full_like(total, jnp.nan)
    square = jnp.square(tree_norm(mean)) - variance / count
    some = square > 0
    return Noise(jnp.where(some, variance / jnp.where(some, square, 1), jnp.nan), square, variance)


def measure(spec: Spec, state: TrainState, view: View) -> Metrics:
    """All of the above on the diagnostic batch, scalars; NaN for a run that is no longer alive.

    Of the loss itself: truncation and clipping of the adjoint, after which a gradient is no gradient and its
    Jacobian not symmetric, are left out.
    """
    exact = dataclasses.replace(spec, clip="norm", truncate=False)
    batch, every = view.batch._replace(weight=None), spec.readout == "every"

    def of_example(params: Params, example: Any) -> Array:
        x, y, mask = example
        y = y[:, None] if every else y[None]
        alone = Batch(x[:, None], y, None if mask is None else mask[:, None])
        return model.loss(exact, params, alone)

    def of_batch(params: Params) -> Array:
        return model.loss(exact, params, batch)

    product = hessian_product(of_batch, state.params)
    ends = lanczos(product, state.params, jax.random.key(0))  # a fixed start: looks differ by the network alone
    xs, ys, mask = jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf, 1, 0), (batch.xs, batch.ys if every else (), batch.mask)
    )
    noise = noise_scale(of_example, state.params, (xs, ys if every else batch.ys, mask))
    looked = {
        "sharpness": ends.largest,
        "sharpness_error": ends.error,
        "least_curvature": ends.least,
        "directional_sharpness": directional_sharpness(product, jax.grad(of_batch)(state.params)),
        "noise_scale": noise.scale,
        "gradient_square": noise.gradient_square,
        "gradient_variance": noise.gradient_variance,
    }
    return {name: jnp.where(state.running, value, jnp.nan) for name, value in looked.items()}
