"""Laws of the two generators of sequences: densities, bounds, penalties differentiated through the backward pass, and
training that a kill does not change."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _programs import program

from experiments import _gan, _generative, _vae
from experiments._generative import Kind, Sequences
from seqdyn.data.text import Examples
from seqdyn.nets.bptt import Watch, live_steps, unroll, watching
from seqdyn.nets.stack import unroll_autodiff
from seqdyn.runs import checkpoint
from seqdyn.types import ConfigError

F64 = jnp.float64
REAL, SHARES = Kind(6, 3, 2), Kind(6, 3, 2, trials=4)
VAE, GAN = _vae.Size(hidden=5, latent=2, batch=4), _gan.Size(hidden=5, noise=2, batch=4, critic=2)
kinds = pytest.mark.parametrize("kind", [REAL, SHARES], ids=["real numbers", "shares"])


def batch(kind, pad="before", steps=6):
    """Four sequences of 6, 4, 2 and 1 steps, in a frame of `steps`."""
    rng = np.random.default_rng(0)
    xs = rng.integers(0, kind.trials + 1, (6, 4, 3)) / kind.trials if kind.trials else rng.standard_normal((6, 4, 3))
    lengths = np.array([6, 4, 2, 1], np.int32)
    whole = np.zeros((steps, 4, 3))
    for i, n in enumerate(lengths):
        whole[steps - n if pad == "before" else 0 :][:n, i] = xs[:n, i]
    live = live_steps(jnp.asarray(lengths), steps, pad)
    return Sequences(jnp.asarray(whole), jnp.array([0, 1, 1, 0]), live)


def near(tree, other, rtol=1e-9):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=1e-12), tree, other)


def begun(of, kind, size):
    """The parameters of `of`, `_vae` or `_gan`, drawn by NumPy: nothing is compiled for it."""
    shapes = jax.eval_shape(lambda: of.init(kind, size, jax.random.key(0), F64))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape), shapes)


def frames(kind):
    """The same sequences padded before, after, and in a longer frame."""
    for pad, steps in (("before", 6), ("after", 9), ("before", 8)):
        yield kind._replace(pad=pad, steps=steps), batch(kind, pad, steps)


# --- the autoencoder ------------------------------------------------------------------------------------------


def negative_elbo(kind, by, vae, watch, given=True):
    of = batch(kind)
    z = jax.random.key(1)
    found = _vae.parts(kind, VAE, vae, of, z, jnp.broadcast_to(jnp.bool_(given), of.live.shape), watch, by)
    return jnp.sum(found.kl - found.log_density)


@kinds
def test_the_gradient_of_the_elbo_is_autodiffs_read_or_not(kind):
    @program
    def found(vae):
        theirs = jax.grad(partial(negative_elbo, kind, unroll_autodiff))(vae, _vae.NOTHING)
        ours = jax.grad(partial(negative_elbo, kind, unroll), argnums=(0, 1))
        watched, readings = ours(vae, _vae.watches(kind, VAE, F64))
        norms = {n: _generative.through_time(r, batch(kind).live) for n, r in readings._asdict().items()}
        return theirs, ours(vae, _vae.NOTHING)[0], watched, norms

    theirs, silent, watched, norms = found(begun(_vae, kind, VAE))
    near(silent, theirs)
    near(watched, theirs)
    assert all((n["whole"] > 0).all() and n["travelled"][-1] == 0 for n in norms.values())
    # Nothing is read out of the encoder before its end: all that arrives there has travelled.
    near(norms["encoder"]["whole"][:-1], norms["encoder"]["travelled"][:-1])


@kinds
def test_padding_changes_neither_elbo_nor_score(kind, key):
    @program
    def each(key, vae, gan, batches):
        found = []
        for (framed, _), of in zip(frames(kind), batches, strict=True):
            given = jnp.ones(of.live.shape, bool)
            found.append((_vae.parts(framed, VAE, vae, of, key, given), _gan.score(framed, GAN, gan.critic, of)))
        return found

    networks = begun(_vae, kind, VAE), begun(_gan, kind, GAN)
    first, *others = each(key, *networks, [of for _, of in frames(kind)])
    for other in others:
        near(other, first)


def test_densities_sum_to_one():
    """Of one step of one feature: the binomial's over its counts, the Gaussian's over a grid."""
    one = Kind(1, 1, 2, trials=4)
    grids = {one: (np.arange(5) / 4, 1.0), one._replace(trials=0): (np.linspace(-9, 9, 2001), 18 / 2000)}

    @program
    def totals(vae):
        found = []
        for kind, (xs, width) in grids.items():
            of = Sequences(jnp.asarray(xs)[None, :, None], jnp.zeros(len(xs), int), jnp.ones((1, len(xs)), bool))
            outputs = jnp.full((1, len(xs), 1), 0.7)
            found.append(width * jnp.sum(jnp.exp(_vae.log_density(kind, vae, outputs, of))))
        return found

    vae = begun(_vae, one, VAE)._replace(log_scale=np.array([-0.3]))
    np.testing.assert_allclose(totals(vae), 1, rtol=1e-6)


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
    size = VAE._replace(latent=1)
    of = batch(kind)

    @program
    def found(key, vae):
        log_w = _vae.log_weights(kind, size, vae, of, key, jnp.bool_(True), 4096)

        def joint(z):
            outputs = _vae.decode(kind, size, vae, jnp.full((4, 1), z), of, jnp.ones(of.live.shape, bool))
            return _vae.log_density(kind, vae, outputs, of) - 0.5 * (jnp.square(z) + _vae.LOG_2PI)

        exact = jax.nn.logsumexp(jax.vmap(joint)(jnp.linspace(-7, 7, 281)), axis=0) + jnp.log(14 / 280)
        return jnp.stack([_vae.bound(log_w, 4**i) for i in range(7)]), exact

    vae = begun(_vae, kind, size)
    bounds, exact = found(key, vae)
    assert (np.diff(bounds, axis=0) > 0).all() and (bounds[-1] - bounds[0] > 0.3).any()
    assert (bounds[0] < exact).all()
    np.testing.assert_allclose(bounds[-1], exact, atol=0.15)


def test_a_decoder_without_history_reads_nothing_of_the_sequence():
    of = batch(REAL)
    xs, live = np.asarray(of.xs), np.asarray(of.live)

    @program
    def decode(vae, z, xs, given):
        return _vae.decode(REAL, VAE, vae, z, of._replace(xs=xs), given)

    vae, z = begun(_vae, REAL, VAE), np.random.default_rng(1).standard_normal((4, 2))

    def apart(given):
        outputs = [decode(vae, z, x, np.full(live.shape, given)) for x in (xs, xs + live[..., None])]
        return np.abs(outputs[0] - outputs[1]).max(axis=(1, 2))

    assert (apart(False) == 0).all()
    assert apart(True)[0] == 0 and (apart(True)[1:] > 0).all()


# --- the adversaries ------------------------------------------------------------------------------------------


def slopes(by, critic, watch=Watch()):
    return jnp.sum(_gan.slope(REAL, GAN, critic, batch(REAL), watch, by).penalty)


def test_the_penalty_differentiates_through_the_backward_pass():
    """Against finite differences along every parameter group, against autodiff, and unchanged by being read."""
    watch = watching(_gan.cells(REAL, GAN, F64)[1], 6, (4,))

    @program
    def found(critic):
        ours = jax.value_and_grad(partial(slopes, unroll))
        return ours(critic), ours(critic, watch), jax.grad(partial(slopes, unroll_autodiff))(critic)

    critic = begun(_gan, REAL, GAN).critic
    (value, ours), read, theirs = found(critic)
    near(read, (value, ours))
    near(ours, theirs, rtol=1e-8)
    at, leaves, total = program(partial(slopes, unroll)), jax.tree.leaves(critic), jax.tree.structure(critic)
    for i, leaf in enumerate(leaves):
        way = np.random.default_rng(i).standard_normal(leaf.shape)
        ends = [at(total.unflatten([*leaves[:i], leaf + h * way, *leaves[i + 1 :]])) for h in (1e-5, -1e-5)]
        along = np.sum(way * jax.tree.leaves(ours)[i])
        np.testing.assert_allclose(along, (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-8)
    # D is linear in the readout's bias, and nothing else is without a part in the penalty.
    sizes = [np.abs(g).max() for g in jax.tree.leaves(ours._replace(readout=ours.readout._replace(b=np.zeros(1))))]
    assert sorted(sizes)[1] > 1e-4 and (ours.readout.b == 0).all()


def test_the_penalty_is_that_of_the_finite_slope_and_its_reading_the_adjoint():
    of = batch(REAL)
    live, watch = np.asarray(of.live), watching(_gan.cells(REAL, GAN, F64)[1], 6, (4,))

    @program
    def sloped(critic):
        found = _gan.slope(REAL, GAN, critic, of, watch)
        assert found.reading.whole is not None and found.reading.travelled is not None
        readings = {"whole": found.reading.whole.h, "travelled": found.reading.travelled.h}
        gradient = jax.grad(lambda xs: jnp.sum(_gan.score(REAL, GAN, critic, of._replace(xs=xs))))(of.xs)
        return found.penalty, found.by_step, readings, gradient

    critic = begun(_gan, REAL, GAN).critic
    penalty, by_step, readings, gradient = sloped(critic)
    score = program(lambda critic, xs: _gan.score(REAL, GAN, critic, of._replace(xs=xs)))
    np.testing.assert_allclose(penalty, (np.linalg.norm(by_step, axis=0) - 1) ** 2, rtol=1e-9)
    assert (by_step[~live] == 0).all() and (by_step[live] > 0).all()
    way = np.random.default_rng(1).standard_normal(of.xs.shape) * live[..., None]
    way = way / np.sqrt(np.sum(np.square(way), axis=(0, 2), keepdims=True))
    # No direction is steeper than the gradient is long, and its own is as steep.
    length = np.sqrt(np.sum(np.square(gradient), axis=(0, 2), keepdims=True))
    xs = np.asarray(of.xs)
    for direction, steepest in ((way, False), (gradient / length, True)):
        along = (score(critic, xs + 1e-5 * direction) - score(critic, xs - 1e-5 * direction)) / 2e-5
        np.testing.assert_allclose(along, np.sum(direction * gradient, axis=(0, 2)), rtol=1e-6, atol=1e-9)
        assert not steepest or np.allclose((along - 1) ** 2, penalty, rtol=1e-6)
    # The readout is the mean over live steps of v·h: the last adjoint is v / n, and nothing travelled there.
    last = readings["whole"][-1] * live.sum(axis=0)
    np.testing.assert_allclose(last, np.full(4, np.linalg.norm(critic.readout.w)), rtol=1e-9)
    travelled = readings["travelled"]
    assert (travelled[-1] == 0).all() and (travelled[:-1][live[:-1]] > 0).all()


def test_the_losses_of_both_players_are_autodiffs():
    real = batch(SHARES)

    def gradients(gan, noise, by):
        def critic(player):
            fake = _gan.generate(SHARES, GAN, gan.generator, noise, real.ys, real.live, by=by)
            assert fake.shape == real.xs.shape
            mix = jnp.array([0.1, 0.5, 0.9, 0.3])
            return _gan.critic_loss(SHARES, GAN, player, real, fake, mix, jnp.asarray(10.0), by=by)[0]

        def generator(player):
            fake = _gan.generate(SHARES, GAN, player, noise, real.ys, real.live, by=by)
            return jnp.sum(_gan.score(SHARES, GAN, gan.critic, real._replace(xs=fake), by=by))

        return jax.grad(critic)(gan.critic), jax.grad(generator)(gan.generator)

    both = program(lambda gan, noise: [gradients(gan, noise, by) for by in (unroll, unroll_autodiff)])
    ours, theirs = both(begun(_gan, SHARES, GAN), np.random.default_rng(1).standard_normal((6, 4, 2)))
    near(ours, theirs, rtol=1e-8)


def test_the_critic_prefers_what_is_real_by_its_distance():
    """The loss is −distance + λ penalty, and the distance the difference of the two mean scores."""
    real = batch(REAL)

    @program
    def judged(critic):
        fake, mix = real.xs * 0.5, jnp.array([0.0, 1.0, 0.5, 0.5])
        ends = [real._replace(xs=xs) for xs in (real.xs, fake)]
        scores = [_gan.score(REAL, GAN, critic, at) for at in ends]
        penalties = [_gan.slope(REAL, GAN, critic, at).penalty for at in ends]
        return *_gan.critic_loss(REAL, GAN, critic, real, fake, mix, jnp.asarray(10.0)), scores, penalties

    loss, found, scores, (at_real, at_fake) = judged(begun(_gan, REAL, GAN).critic)
    np.testing.assert_allclose(found.distance, np.mean(scores[0]) - np.mean(scores[1]), rtol=1e-9)
    np.testing.assert_allclose(loss, 10 * np.mean(found.slope.penalty) - found.distance, rtol=1e-9)
    near(found.slope.penalty[:2], np.stack([at_fake[0], at_real[1]]))  # ε = 0 is the fake, ε = 1 the real one


# --- training -------------------------------------------------------------------------------------------------


def examples(kind, n, seed=0):
    rng = np.random.default_rng(seed)
    xs = rng.integers(0, kind.trials + 1, (n, 6, 3)) / kind.trials if kind.trials else rng.standard_normal((n, 6, 3))
    lengths, ys = rng.integers(2, 7, n).astype(np.int32), (np.arange(n) % 2).astype(np.int32)
    xs = xs * _generative.live_of(kind, lengths)[..., None]
    return Examples(xs.astype(np.float32), lengths, ys)


@pytest.fixture
def single():
    """As a whole run is, in every thread."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


def vae_job(train, validation=None, kind=REAL, updates=12, **numbers):
    validation = examples(kind, 6, seed=1) if validation is None else validation
    given = _vae.Numbers(**({"seed": 3, "size": 8, "anneal": 8.0} | numbers))
    return _vae.job(kind, VAE, given, train, validation, updates, 3)


def gan_job(train, kind=SHARES, updates=12, **numbers):
    return _gan.job(kind, GAN, _gan.Numbers(**({"seed": 3, "size": 8} | numbers)), train, updates, 3)


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("make, kind", [(vae_job, REAL), (gan_job, SHARES)], ids=["vae", "gan"])
def test_training_that_was_killed_ends_with_the_same_bits_and_uses_the_first_examples_alone(
    make, kind, tmp_path, monkeypatch
):
    train = examples(kind, 12)
    job = make(train)[0]
    whole = _generative.train(job)
    assert whole.records["finite"].all() and all(len(r) == 4 for r in whole.records.values())
    moving = whole.records["kl" if "kl" in whole.records else "distance"]
    assert len(set(moving.tolist())) == 4

    saved, save = [], checkpoint.save

    def killed(*given):
        save(*given)
        saved.append(given[1])
        if len(saved) in (1, 2):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            _generative.train(job, tmp_path, seconds=0)
    broken = _generative.train(job, tmp_path, seconds=0)
    assert saved == [3, 6, 9, 12]
    assert checkpoint.digest(tuple(broken)) == checkpoint.digest(tuple(whole))
    assert checkpoint.digest(tuple(_generative.train(job, tmp_path))) == checkpoint.digest(tuple(whole))
    assert saved == [3, 6, 9, 12], "what is done was done again"

    rest = Examples(*(np.concatenate([a[:8], b[8:]]) for a, b in zip(train, examples(kind, 12, seed=5), strict=True)))
    assert checkpoint.digest(_generative.train(make(rest)[0]).state) == checkpoint.digest(whole.state)
    more = _generative.train(make(rest, size=12)[0])
    assert checkpoint.digest(more.state) != checkpoint.digest(whole.state)


@pytest.mark.usefixtures("single")
def test_jobs_side_by_side_are_each_alone():
    train = examples(REAL, 12)
    jobs = {seed: vae_job(train, seed=seed)[0] for seed in (3, 4)} | {"gan": gan_job(examples(SHARES, 12))[0]}
    together = _generative.train_all(jobs)
    assert list(together) == [3, 4, "gan"]
    for name, job in jobs.items():
        assert checkpoint.digest(together[name].state) == checkpoint.digest(_generative.train(job).state)


@pytest.mark.usefixtures("single")
def test_the_weight_of_the_divergence_rises_over_its_updates_or_is_one():
    train = examples(REAL, 12)
    weights = {anneal: _generative.train(vae_job(train, anneal=anneal)[0]).records["beta"] for anneal in (8.0, 0.0)}
    np.testing.assert_allclose(weights[8.0], [0, 3 / 8, 6 / 8, 1])
    assert (weights[0.0] == 1).all()


@pytest.mark.usefixtures("single")
def test_the_parameters_with_the_best_validation_elbo_are_kept():
    job, _ = vae_job(examples(REAL, 12), lr=0.1, updates=90)
    trained = _generative.train(job)
    found = trained.records["validation_elbo"]
    assert trained.state.elbo == found.max() and found.argmax() != len(found) - 1
    state = job.program.init(job.numbers)
    for step in range(0, 3 * (int(found.argmax()) + 1), 3):
        state, _ = job.program.chunk(job.numbers, state, job.data, jnp.int32(step), 3)
    assert checkpoint.digest(state.vae) == checkpoint.digest(trained.state.best)


@pytest.mark.usefixtures("single")
def test_a_run_that_diverges_stays_where_it_was():
    trained = _generative.train(vae_job(examples(REAL, 12), lr=np.inf)[0])
    assert not trained.records["finite"].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained.state.vae))


@pytest.mark.usefixtures("single")
@kinds
@pytest.mark.parametrize("model", ["vae", "gan"])
def test_samples_are_balanced_as_long_as_their_class_is_and_zero_on_padding(kind, model):
    """Drawn by untrained networks: the law does not ask for more."""
    train = examples(kind, 12)
    job, scale = (vae_job if model == "vae" else gan_job)(train, kind=kind)
    begun = _generative.Trained(jax.tree.map(np.asarray, job.program.init(job.numbers)), {})
    if model == "vae":
        draw = partial(_vae.synthesise, kind, VAE, begun, scale, True, train)
    else:
        draw = partial(_gan.synthesise, kind, GAN, begun, scale, train)
    found = draw(40, 1)
    assert found.xs.shape == (40, 6, 3) and found.xs.dtype == np.float32 and np.isfinite(found.xs).all()
    assert (np.bincount(found.ys) == 20).all()
    for y in range(2):
        assert set(found.lengths[found.ys == y]) <= set(train.lengths[train.ys == y])
    live = _generative.live_of(kind, found.lengths)
    assert (found.xs[~live] == 0).all() and found.xs[live].std() > 0
    if kind.trials:
        assert found.xs.min() >= 0 and found.xs.max() <= 1
    assert all(np.array_equal(a, b) for a, b in zip(found, draw(40, 1), strict=True))
    assert not np.array_equal(found.xs, draw(40, 2).xs)


@pytest.mark.usefixtures("single")
def test_augmented_is_a_function_of_training_and_validation_split_and_seed(tmp_path):
    data = {"train": examples(REAL, 12), "validation": examples(REAL, 6, 1), "test": examples(REAL, 6, 2)}
    draw = partial(_vae.augmented, share=1.5, size=VAE, updates=3)
    found = draw(data, 0, cache_dir=tmp_path / "a")
    assert found.xs.shape == (18, 6, 3) and (np.bincount(found.ys) == 9).all()
    again = draw(data | {"test": examples(REAL, 6, 9)}, 0, cache_dir=tmp_path / "b")
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    assert not np.array_equal(found.xs, draw(data, 1, cache_dir=tmp_path / "a").xs)


def test_a_class_without_an_example_is_named():
    train = examples(REAL, 12)._replace(ys=np.zeros(12, np.int32))
    with pytest.raises(ConfigError, match="no example of class 1"):
        _generative.wanted(REAL, train, 4, 0)


def test_scaling_is_by_the_examples_that_are_used_and_undone():
    train = examples(REAL, 12)
    moved = train._replace(xs=np.concatenate([train.xs[:8], 100 + train.xs[8:]]))
    scale = _generative.scaling(REAL, moved, 8)
    assert np.array_equal(scale.mean, _generative.scaling(REAL, train, 8).mean) and abs(scale.mean).max() < 1
    data = _generative.scaled(REAL, train, scale)
    live = _generative.live_of(REAL, train.lengths)
    np.testing.assert_allclose(data.xs[:8][live[:8]].std(axis=0), 1, rtol=1e-5)
    near(_generative.unscaled(REAL, scale, *data).xs, train.xs, rtol=1e-5)
