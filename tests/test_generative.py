"""Laws of the two generators of sequences: densities, bounds, penalties differentiated through the backward pass, and
one gradient for two players."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _programs import program

from experiments import _gan, _generative, _vae
from experiments._generative import Kind
from seqdyn.data.batches import Batch
from seqdyn.data.text import Examples
from seqdyn.learn import network
from seqdyn.nets.bptt import valid_steps
from seqdyn.nets.stack import unroll_autodiff
from seqdyn.types import ConfigError

REAL, SHARES = Kind(6, 3, 2), Kind(6, 3, 2, trials=4)
kinds = pytest.mark.parametrize("kind", [REAL, SHARES], ids=["real numbers", "shares"])


def vae_of(kind, latent=2, history=1.0, anneal=0.0):
    return _vae.VAE(kind.features, kind.classes, kind.trials, 5, latent, history, anneal)


def gan_of(kind):
    return _gan.GAN(kind.features, kind.classes, kind.trials, 5, 2)


def batch(kind, pad="before", steps=6):
    """Four sequences of 6, 4, 2 and 1 steps, in a frame of `steps`."""
    rng = np.random.default_rng(0)
    xs = rng.integers(0, kind.trials + 1, (6, 4, 3)) / kind.trials if kind.trials else rng.standard_normal((6, 4, 3))
    lengths = np.array([6, 4, 2, 1], np.int32)
    whole = np.zeros((steps, 4, 3))
    for i, n in enumerate(lengths):
        whole[steps - n if pad == "before" else 0 :][:n, i] = xs[:n, i]
    mask = valid_steps(jnp.asarray(lengths), steps, pad)
    return Batch(jnp.asarray(whole), jnp.array([0, 1, 1, 0]), mask)


def near(tree, other, rtol=1e-9):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=1e-12), tree, other)


def begun(of, dtype=np.float64):
    """The parameters of a generator, drawn by NumPy: nothing is compiled for it."""
    shapes = jax.eval_shape(lambda: of.init(jax.random.key(0)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: (0.3 * rng.standard_normal(leaf.shape)).astype(dtype), shapes)


def frames(kind):
    """The same sequences padded before, after, and in a longer frame."""
    return [batch(kind, pad, steps) for pad, steps in (("before", 6), ("after", 9), ("before", 8))]


@pytest.fixture
def by_autodiff(monkeypatch):
    """Runs a function with JAX's autodiff of a plain scan in place of the hand-written backward pass."""

    def run(function, *given):
        with monkeypatch.context() as patch:
            patch.setattr(_generative, "unroll", unroll_autodiff)
            return function(*given)

    return run


# --- the autoencoder ------------------------------------------------------------------------------------------


def test_the_gradient_of_the_elbo_is_that_of_the_hand_written_pass_and_the_encoder_is_told_at_its_end_alone():
    vae, of = vae_of(REAL, history=0.7, anneal=8.0), batch(REAL)._replace(noise=jax.random.key(1), step=jnp.int32(4))
    spec = REAL.spec(vae, batch=4)

    @program
    def found(params):
        def negative_elbo(params):
            parts = vae.parts(params, of, of.noise)
            return jnp.mean(0.5 * parts.kl - parts.log_density)

        watched = network.gradient(spec, params, of)
        return watched.grads, jax.grad(negative_elbo)(params), network.read(spec, of, watched.seen)

    ours, theirs, norms = found(begun(vae))
    near(ours, theirs)
    decoder, encoder = norms["adjoint_norm"]
    assert (decoder > 0).all() and (encoder > 0).all() and (norms["carried_norm"][:, -1] == 0).all()
    np.testing.assert_allclose(norms["carried_norm"][1, :-1], encoder[:-1], rtol=1e-6)
    assert norms["adjoint_count"].tolist() == [1, 1, 2, 2, 3, 4]


@kinds
def test_padding_changes_neither_elbo_nor_score(kind):
    vae, gan = vae_of(kind), gan_of(kind)

    @program
    def each(vae_params, gan_params, batches):
        return [(vae.parts(vae_params, of, None), gan.score(gan_params["critic"], of)) for of in batches]

    first, *others = each(begun(vae), begun(gan), frames(kind))
    for other in others:
        near(other, first)


def test_densities_sum_to_one():
    """Of one step of one feature: the binomial's over its counts, the Gaussian's over a grid."""
    one = Kind(1, 1, 2, trials=4)
    grids = {one: (np.arange(5) / 4, 1.0), one._replace(trials=0): (np.linspace(-9, 9, 2001), 18 / 2000)}

    @program
    def totals(log_scale):
        found = []
        for kind, (xs, width) in grids.items():
            of = Batch(jnp.asarray(xs)[None, :, None], jnp.zeros(len(xs), int), jnp.ones((1, len(xs)), bool))
            outputs = jnp.full((1, len(xs), 1), 0.7)
            found.append(width * jnp.sum(jnp.exp(vae_of(kind).log_density({"log_scale": log_scale}, outputs, of))))
        return found

    np.testing.assert_allclose(totals(np.array([-0.3])), 1, rtol=1e-6)


def test_the_divergence_is_its_integral():
    mean, log_variance = np.array([[0.7, -1.0]]), np.array([[-1.0, 0.4]])
    z = mean + np.exp(0.5 * log_variance) * np.random.default_rng(0).standard_normal((200_000, 2))
    log_q = -0.5 * (np.square(z - mean) * np.exp(-log_variance) + log_variance)
    sampled = np.mean(log_q + 0.5 * np.square(z), axis=0)
    found, none = program(lambda *given: (_vae.divergence(*given), _vae.divergence(*map(jnp.zeros_like, given))))(
        mean, log_variance
    )
    np.testing.assert_allclose(sampled, found[0], atol=0.01)
    assert (none == 0).all()


@kinds
def test_more_samples_only_raise_the_bound_which_reaches_the_likelihood(kind, key):
    """With one latent number the likelihood is an integral over a line."""
    vae, of = vae_of(kind, latent=1), batch(kind)

    @program
    def found(key, params):
        log_w = vae.log_weights(params, of, key, 4096)

        def joint(z):
            outputs = vae.decode(params, jnp.full((4, 1), z), of, jnp.ones(of.mask.shape, bool))
            return vae.log_density(params, outputs, of) - 0.5 * (jnp.square(z) + _vae.LOG_2PI)

        exact = jax.nn.logsumexp(jax.vmap(joint)(jnp.linspace(-7, 7, 281)), axis=0) + jnp.log(14 / 280)
        return jnp.stack([_vae.bound(log_w, 4**i) for i in range(7)]), exact

    bounds, exact = found(key, begun(vae))
    assert (np.diff(bounds, axis=0) > 0).all() and (bounds[-1] - bounds[0] > 0.3).any()
    assert (bounds[0] < exact).all()
    np.testing.assert_allclose(bounds[-1], exact, atol=0.15)


def test_a_decoder_without_history_reads_nothing_of_the_sequence():
    vae, of = vae_of(REAL), batch(REAL)
    xs, mask = np.asarray(of.xs), np.asarray(of.mask)

    @program
    def decode(params, z, xs, given):
        return vae.decode(params, z, of._replace(xs=xs), given)

    params, z = begun(vae), np.random.default_rng(1).standard_normal((4, 2))

    def apart(given):
        outputs = [decode(params, z, x, np.full(mask.shape, given)) for x in (xs, xs + mask[..., None])]
        return np.abs(outputs[0] - outputs[1]).max(axis=(1, 2))

    assert (apart(False) == 0).all()
    assert apart(True)[0] == 0 and (apart(True)[1:] > 0).all()


def test_the_weight_of_the_divergence_rises_over_its_updates_or_is_one():
    @program
    def weights(params, steps, anneal):
        def weight(step):
            loss, of = vae_of(REAL, anneal=anneal).loss(params, batch(REAL)._replace(step=step), None)
            return (loss + of["log_density"]) / of["kl"]

        return jax.vmap(weight)(steps), weight(None)

    params, steps = begun(vae_of(REAL)), np.array([0, 3, 6, 8, 20])
    for anneal, right in ((8.0, [0, 3 / 8, 6 / 8, 1, 1]), (0.0, [1] * 5)):
        risen, judged = weights(params, steps, anneal)
        np.testing.assert_allclose(risen, right, atol=1e-12)
        np.testing.assert_allclose(judged, 1, rtol=1e-12)


# --- the adversaries ------------------------------------------------------------------------------------------


def slopes(critic):
    return jnp.sum(gan_of(REAL).slope(critic, batch(REAL)).penalty)


def test_the_penalty_differentiates_through_the_backward_pass(by_autodiff):
    """Against finite differences along every parameter group, and against autodiff."""

    @program
    def found(critic):
        return jax.grad(slopes)(critic), by_autodiff(jax.grad(slopes), critic)

    critic = begun(gan_of(REAL))["critic"]
    ours, theirs = found(critic)
    near(ours, theirs, rtol=1e-8)
    at, leaves, total = program(slopes), jax.tree.leaves(critic), jax.tree.structure(critic)
    for i, leaf in enumerate(leaves):
        way = np.random.default_rng(i).standard_normal(leaf.shape)
        ends = [at(total.unflatten([*leaves[:i], leaf + h * way, *leaves[i + 1 :]])) for h in (1e-5, -1e-5)]
        along = np.sum(way * jax.tree.leaves(ours)[i])
        np.testing.assert_allclose(along, (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-8)
    # D is linear in the readout's bias, and nothing else is without a part in the penalty.
    sizes = [np.abs(g).max() for g in jax.tree.leaves(ours._replace(readout=ours.readout._replace(b=np.zeros(1))))]
    assert sorted(sizes)[1] > 1e-4 and (ours.readout.b == 0).all()


def test_the_penalty_is_that_of_the_finite_slope():
    of, gan = batch(REAL), gan_of(REAL)
    mask = np.asarray(of.mask)

    @program
    def sloped(critic):
        gradient = jax.grad(lambda xs: jnp.sum(gan.score(critic, of._replace(xs=xs))))(of.xs)
        return gan.slope(critic, of), gradient

    critic = begun(gan)["critic"]
    (penalty, by_step), gradient = sloped(critic)
    score = program(lambda critic, xs: gan.score(critic, of._replace(xs=xs)))
    np.testing.assert_allclose(penalty, (np.linalg.norm(by_step, axis=0) - 1) ** 2, rtol=1e-9)
    assert (by_step[~mask] == 0).all() and (by_step[mask] > 0).all()
    way = np.random.default_rng(1).standard_normal(of.xs.shape) * mask[..., None]
    way = way / np.sqrt(np.sum(np.square(way), axis=(0, 2), keepdims=True))
    # No direction is steeper than the gradient is long, and its own is as steep.
    length = np.sqrt(np.sum(np.square(gradient), axis=(0, 2), keepdims=True))
    xs = np.asarray(of.xs)
    for direction, steepest in ((way, False), (gradient / length, True)):
        along = (score(critic, xs + 1e-5 * direction) - score(critic, xs - 1e-5 * direction)) / 2e-5
        np.testing.assert_allclose(along, np.sum(direction * gradient, axis=(0, 2)), rtol=1e-6, atol=1e-9)
        assert not steepest or np.allclose((along - 1) ** 2, penalty, rtol=1e-6)


@pytest.mark.slow
def test_one_gradient_is_that_of_each_player_with_respect_to_its_own_loss(by_autodiff):
    """The critic's of λ penalty − distance at sequences that are given, the generator's of −E D(x̃), by autodiff."""
    real, gan = batch(SHARES)._replace(noise=jax.random.key(2), step=jnp.int32(0)), gan_of(SHARES)
    spec = SHARES.spec(gan, batch=4)

    def alone(params):
        k_noise, k_mix = jax.random.split(real.noise)
        noise, mix = jax.random.normal(k_noise, (6, 4, 2)), jax.random.uniform(k_mix, (4,))

        def fake(generator):
            return gan.generate(generator, noise, real.ys, real.mask)

        def generator(player):
            return -jnp.mean(gan.score(params["critic"], real._replace(xs=fake(player))))

        def critic(player):
            return gan.critic_loss(player, real, fake(params["generator"]), mix)[0]

        value, of_critic = jax.value_and_grad(critic)(params["critic"])
        return value, {"critic": of_critic, "generator": jax.grad(generator)(params["generator"])}

    @program
    def both(params):
        ours = network.gradient(spec, params, real)
        assert ours.seen.keys() == {"critic", "generator"}
        return (ours.forward.loss, ours.grads), by_autodiff(alone, params), network.read(spec, real, ours.seen)

    (loss, ours), (value, theirs), norms = both(begun(gan))
    near(ours, theirs, rtol=1e-8)
    np.testing.assert_allclose(loss, value, rtol=1e-6)
    assert (norms["adjoint_norm"] > 0).all()


def test_the_critic_prefers_what_is_real_by_its_distance():
    """The loss is −distance + λ penalty, and the distance the difference of the two mean scores."""
    real, gan = batch(REAL), gan_of(REAL)

    @program
    def judged(critic):
        fake, mix = real.xs * 0.5, jnp.array([0.0, 1.0, 0.5, 0.5])
        ends = [real._replace(xs=xs) for xs in (real.xs, fake)]
        scores = [gan.score(critic, at) for at in ends]
        mixed = real._replace(xs=fake + mix[None, :, None] * (real.xs - fake))
        return *gan.critic_loss(critic, real, fake, mix), scores, gan.slope(critic, mixed).penalty

    loss, found, scores, penalty = judged(begun(gan)["critic"])
    np.testing.assert_allclose(found["distance"], np.mean(scores[0]) - np.mean(scores[1]), rtol=1e-9)
    np.testing.assert_allclose(found["gradient_penalty"], np.mean(penalty), rtol=1e-9)
    np.testing.assert_allclose(loss, 10 * found["gradient_penalty"] - found["distance"], rtol=1e-9)


def test_the_generator_moves_once_in_so_many_updates_by_its_mean_gradient():
    rng = np.random.default_rng(0)
    grads = [{name: rng.standard_normal(3) for name in ("critic", "generator")} for _ in range(6)]

    @program
    def moved(grads):
        rule, adam = _gan.Players(0.1, critic=3).build(), optax.adam(0.1, b1=0.0, b2=0.9)
        params, found, right = jax.tree.map(jnp.zeros_like, grads[0]), [], []
        state, own = rule.init(params), adam.init(params["generator"])
        for n, given in enumerate(grads):
            updates, state = rule.update(given, state, params)
            found.append(updates)
            if n % 3 == 2:
                mean = sum(g["generator"] for g in grads[n - 2 : n + 1]) / 3
                step, own = adam.update(mean, own)
                right.append(step)
        return found, right

    with jax.numpy_dtype_promotion("standard"):
        found, right = moved(grads)
    still = [u for n, u in enumerate(found) if n % 3 != 2]
    assert all((u["generator"] == 0).all() for u in still) and all((u["critic"] != 0).all() for u in found)
    near([found[2]["generator"], found[5]["generator"]], right, rtol=1e-6)


# --- samples --------------------------------------------------------------------------------------------------


def examples(kind, n, seed=0):
    rng = np.random.default_rng(seed)
    xs = rng.integers(0, kind.trials + 1, (n, 6, 3)) / kind.trials if kind.trials else rng.standard_normal((n, 6, 3))
    lengths, ys = rng.integers(2, 7, n).astype(np.int32), (np.arange(n) % 2).astype(np.int32)
    xs = xs * _generative.mask_of(kind, lengths)[..., None]
    return Examples(xs.astype(np.float32), lengths, ys)


@pytest.fixture
def single():
    """As a whole run is, in every thread."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


@pytest.mark.usefixtures("single")
@kinds
@pytest.mark.parametrize("model", ["vae", "gan"])
def test_samples_are_balanced_as_long_as_their_class_is_and_zero_on_padding(kind, model):
    """Drawn by untrained networks: the law does not ask for more."""
    train = examples(kind, 12)
    of, scale = (vae_of if model == "vae" else gan_of)(kind), _generative.scaling(kind, train)
    draw = partial(_generative.synthesise, kind, of, begun(of, np.float32), scale, train)
    found = draw(40, 1)
    assert found.xs.shape == (40, 6, 3) and found.xs.dtype == np.float32 and np.isfinite(found.xs).all()
    assert (np.bincount(found.ys) == 20).all()
    for y in range(2):
        assert set(found.lengths[found.ys == y]) <= set(train.lengths[train.ys == y])
    mask = _generative.mask_of(kind, found.lengths)
    assert (found.xs[~mask] == 0).all() and found.xs[mask].std() > 0
    if kind.trials:
        assert found.xs.min() >= 0 and found.xs.max() <= 1
    assert all(np.array_equal(a, b) for a, b in zip(found, draw(40, 1), strict=True))
    assert not np.array_equal(found.xs, draw(40, 2).xs)


@pytest.mark.slow
@pytest.mark.usefixtures("single")
def test_augmented_is_a_function_of_training_and_validation_split_and_seed(tmp_path):
    data = {"train": examples(REAL, 12), "validation": examples(REAL, 6, 1), "test": examples(REAL, 6, 2)}
    draw = partial(_vae.augmented, share=1.5, hidden=5, latent=2, batch=4, updates=2)
    found = draw(data, 0, cache_dir=tmp_path / "a")
    assert found.xs.shape == (18, 6, 3) and (np.bincount(found.ys) == 9).all()
    again = draw(data | {"test": examples(REAL, 6, 9)}, 0, cache_dir=tmp_path / "b")
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    assert not np.array_equal(found.xs, draw(data, 1, cache_dir=tmp_path / "a").xs)


def test_a_class_without_an_example_is_named():
    train = examples(REAL, 12)._replace(ys=np.zeros(12, np.int32))
    with pytest.raises(ConfigError, match="no example of class 1"):
        _generative.wanted(REAL, train, 4, 0)


def test_scaling_is_by_live_steps_alone_and_undone():
    train = examples(REAL, 12)
    mask = _generative.mask_of(REAL, train.lengths)
    scale = _generative.scaling(REAL, train._replace(xs=np.where(mask[..., None], train.xs, 100)))
    found = _generative.scaled(REAL, train, scale)
    np.testing.assert_allclose(found.xs[mask].std(axis=0), 1, rtol=1e-5)
    assert (found.xs[~mask] == 0).all()
    near(_generative.unscaled(REAL, found, scale).xs, train.xs, rtol=1e-5)
