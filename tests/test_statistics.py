"""Laws of running statistics: of the library's batch normalisation as a part, and of normalisers of one's own, which
are moved by the batches alone, saved and carried with the parameters, and seen by no gradient and no optimiser."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _digests import digests
from _refusals import refusal
from _training import evaluated, having, scene, update

import seqdyn as sd
from seqdyn.backend import compiled
from seqdyn.io import stacks
from seqdyn.learn import model, train, verify
from seqdyn.nets.normalised import EPSILON
from seqdyn.numbers import Numbers

X64 = False
T = 5
ADDING = sd.Spec(task=sd.Adding(T), batch=6, holdout=6)
LR = Numbers(lr=0.05).arrays()


@sd.part
class RunningRMS:
    """h' = tanh(z / √(s + ε)), z = W x + U h, s the running mean of z² over batches; the same cell in training."""

    hidden: int
    new: sd.Number = sd.number(0.2, low=0.0, high=1.0)

    def build(self, inputs):
        carry = lambda batch: {"h": jnp.zeros((*batch, self.hidden)), "steps": jnp.zeros(batch, jnp.int32)}  # noqa: E731
        return sd.cell(partial(self.init, inputs), self.step, carry, self.statistics)

    def init(self, inputs, key):
        w, u = jax.random.split(key)
        matrices = {"w": jax.random.normal(w, (inputs, self.hidden)), "u": jax.random.normal(u, (self.hidden,) * 2)}
        return matrices | {"statistics": {"square": jnp.full(self.hidden, 2.0)}}

    def drive(self, params, carry, x):
        return x @ params["w"] + carry["h"] @ params["u"]

    def step(self, params, carry, x):
        scale = jnp.sqrt(params["statistics"]["square"] + EPSILON)
        return {"h": jnp.tanh(self.drive(params, carry, x) / scale), "steps": carry["steps"] + 1}

    def statistics(self, params, before, xs):
        square = jnp.mean(self.drive(params, before, xs) ** 2, axis=(0, 1))
        return {"square": (1 - self.new) * params["statistics"]["square"] + self.new * square}


@sd.part
class Batched:
    """A batch-normalised rnn by the same door as any user's: h' = tanh(N(W x) + N(U h) + b), each step its own."""

    hidden: int
    renewed: sd.Number = sd.number(0.1)

    def build(self, inputs):
        return self.made(inputs, lambda x, kept, t: (x - kept["mean"][t]) / jnp.sqrt(kept["variance"][t] + EPSILON))

    def build_training(self, inputs):
        return self.made(inputs, lambda x, kept, t: (x - x.mean(0)) / jnp.sqrt(x.var(0) + EPSILON))

    def made(self, inputs, normal):
        carry = lambda batch: {"h": jnp.zeros((*batch, self.hidden)), "t": jnp.zeros(batch, jnp.int32)}  # noqa: E731
        return sd.cell(partial(self.init, inputs), partial(self.step, normal), carry, self.statistics)

    def init(self, inputs, key):
        begun = sd.BatchNorm(sd.RNN(self.hidden), steps=T).build(inputs).init(key)
        kept = {"x": begun.statistics.x._asdict(), "h": begun.statistics.h._asdict()}
        return {name: getattr(begun, name) for name in ("w", "u", "b", "gain_x", "gain_h")} | {"statistics": kept}

    def step(self, normal, params, carry, x):
        kept, t = params["statistics"], carry["t"][0]
        z = params["gain_x"] * normal(x @ params["w"], kept["x"], t) + params["b"]
        z += params["gain_h"] * normal(carry["h"] @ params["u"], kept["h"], t)
        return {"h": jnp.tanh(z), "t": carry["t"] + 1}

    def statistics(self, params, before, xs):
        seen = {"x": xs @ params["w"], "h": before["h"] @ params["u"]}
        new = {name: {"mean": z.mean(1), "variance": z.var(1)} for name, z in seen.items()}
        return jax.tree.map(lambda a, b: (1 - self.renewed) * a + self.renewed * b, params["statistics"], new)


@sd.part
class Unkept(RunningRMS):
    def build(self, inputs):
        return super().build(inputs)._replace(update_batch_stats=None)


@sd.part
class Half(Batched):
    def build(self, inputs):
        return super().build(inputs)._replace(update_batch_stats=None)


@sd.part
class Wider(RunningRMS):
    def statistics(self, params, before, xs):
        return {"square": jnp.ones(self.hidden + 1)}


@sd.part
class Complex(RunningRMS):
    def statistics(self, params, before, xs):
        return {"square": 1j * params["statistics"]["square"]}


@sd.part
class Raw(RunningRMS):
    def build(self, inputs):
        return super().build(inputs)._replace(update_batch_stats=lambda ran: {"mean": jnp.ones(self.hidden)})


@sd.part
class Without(RunningRMS):
    def init(self, inputs, key):
        return {name: leaf for name, leaf in super().init(inputs, key).items() if name != "statistics"}

    def step(self, params, carry, x):
        return {"h": jnp.tanh(self.drive(params, carry, x)), "steps": carry["steps"] + 1}


@sd.part
class Decaying:
    """adamw of all leaves: it would shrink statistics, too."""

    def build(self):
        return optax.adamw(0.05, weight_decay=2.0)


@sd.part
class Everything:
    """½ Σ p² of all that `init` gives, statistics included."""

    weight: sd.Number = sd.number(3.0)
    reads = "weights"

    def value(self, seen):
        return 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(seen.params))


def trained(spec, updates=3):
    """[(state before, batch), …] of the first updates, and the state after them."""
    state, path = train.init(having(spec, LR)), []
    for i in range(updates):
        path.append((state, train.training_batch(having(spec, LR), None, i)))
        state = update(spec, LR, state, autodiff=False).after
    assert bool(state.alive)
    return path, state


def double(tree):
    return jax.tree.map(np.float64, tree)


def close(one, other, rtol=1e-4, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other)


def normal(x, gain):
    return gain * (x - x.mean(0)) / np.sqrt(x.var(0) + EPSILON)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def moments_of_an_lstm(params, xs):
    """Mean and variance of W x, U h and c over the examples of every step: Cooijmans et al. 2017, eq. 6–8."""
    h = c = np.zeros((xs.shape[1], params.u.shape[0]))
    seen = []
    for x in np.float64(xs):
        wx, uh = x @ params.w, h @ params.u
        i, f, o, g = np.split(normal(wx, params.gain_x) + normal(uh, params.gain_h) + params.b, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(normal(c, params.gain_c) + params.shift_c)
        seen.append([(z.mean(0), z.var(0)) for z in (wx, uh, c)])
    return [tuple(map(np.stack, zip(*of, strict=True))) for of in zip(*seen, strict=True)]


def moments_of_the_drive(params, xs):
    z = np.float64(xs) @ params.w
    return [(z.mean((0, 1)), z.var((0, 1)))]


@pytest.mark.parametrize(
    "word, cell, part, moments",
    [
        ("batch", "lstm", partial(sd.BatchNorm, steps=T), moments_of_an_lstm),
        ("batch_drive", "gru", sd.BatchNormDrive, moments_of_the_drive),
    ],
)
def test_word_and_part_train_alike_and_their_averages_are_numpys(word, cell, part, moments):
    level = {"lstm": sd.LSTM, "gru": sd.GRU}[cell]
    by_word = dataclasses.replace(ADDING, cell=cell, hidden=(3,), normalise=word)
    by_part = dataclasses.replace(ADDING, layers=(part(level(3)),))
    assert by_part.label == f"{part.func.__name__ if word == 'batch' else part.__name__}({level.__name__})"
    (_, ours), (path, theirs) = trained(by_word), trained(by_part)
    close(ours.params, theirs.params, rtol=1e-5)
    close(evaluated(by_word, LR, ours), evaluated(by_part, LR, theirs), rtol=1e-5)
    kept = [m for m in double(path[0][0].params.layers[0].statistics) if m is not None]
    for state, batch in path:
        new = moments(double(state.params.layers[0]), batch.xs)
        kept = [[0.9 * a + 0.1 * b for a, b in zip(*pair, strict=True)] for pair in zip(kept, new, strict=True)]
    found = [list(m) for m in theirs.params.layers[0].statistics if m is not None]
    close(found, kept)
    assert np.abs(found[0][1] - 1).max() > 0.05  # they have moved from where they began


@pytest.mark.parametrize("word", ["batch_drive", "batch"])
def test_a_network_that_is_judged_has_no_gradient_at_its_averages(word):
    spec = dataclasses.replace(ADDING, hidden=(3,), normalise=word)
    h, state, batch = scene(spec)

    @compiled
    def slopes(params, batch):
        spec_ = having(spec, h)
        return jax.grad(lambda p: jnp.mean(model.losses(spec_, model.predict(spec_, p, batch), batch.ys)))(params)

    found = slopes(jax.tree.map(jnp.abs, state.params), batch).layers[0]
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(found.statistics))
    assert all(np.any(np.asarray(leaf) != 0) for leaf in (found.w, found.u, found.gain_x))


def test_batch_normalisation_of_ones_own_is_the_librarys():
    """Written as a step with `sd.cell(…, statistics=)`: what is trained, what is kept, and how it is judged."""
    own, library = Batched(3, 0.3), sd.BatchNorm(sd.RNN(3), renewed=0.3, steps=T)
    specs = [dataclasses.replace(ADDING, layers=(level,)) for level in (own, library)]
    (_, ours), (_, theirs) = map(trained, specs)
    expected = theirs.params.layers[0]
    kept = {"x": expected.statistics.x._asdict(), "h": expected.statistics.h._asdict()}
    assert np.abs(kept["x"]["variance"] - 1).max() > 0.2
    close(
        ours.params.layers[0], {name: getattr(expected, name) for name in ours.params.layers[0]} | {"statistics": kept}
    )
    close(*(evaluated(spec, LR, state) for spec, state in zip(specs, (ours, theirs), strict=True)))
    assert verify.gradient_error(having(specs[0], LR), None) < 1e-4


def test_statistics_of_ones_own_are_moved_by_the_batches_alone():
    """Whatever an optimiser and a penalty make of all leaves."""
    level = RunningRMS(3, 0.5)
    spec = dataclasses.replace(ADDING, layers=(level,), optimizer=Decaying(), penalties=(Everything(),))
    path, state = trained(spec)
    kept = np.full(3, 2.0)
    for before, batch in path:
        params = double(before.params.layers[0])
        np.testing.assert_allclose(params["statistics"]["square"], kept, rtol=1e-5)
        h, squares = np.zeros((6, 3)), []
        for x in np.float64(batch.xs):
            z = x @ params["w"] + h @ params["u"]
            squares.append(z**2)
            h = np.tanh(z / np.sqrt(kept + EPSILON))
        kept = 0.5 * kept + 0.5 * np.mean(squares, axis=(0, 1))
    np.testing.assert_allclose(state.params.layers[0]["statistics"]["square"], kept, rtol=1e-5)
    assert np.abs(kept - 2).max() > 0.2
    assert {*model.groups(state.params)} == {"layer0/w", "layer0/u", "readout"}
    plain = dataclasses.replace(ADDING, layers=(level,))
    slopes = jax.grad(lambda params: model.loss(having(plain, LR), params, path[0][1]))(path[0][0].params)
    assert not np.any(slopes.layers[0]["statistics"]["square"]) and np.any(slopes.layers[0]["u"])


def runs(**more):
    layers = (RunningRMS(3), sd.BatchNormDrive(sd.GRU(2)))
    grid = sd.grid(dataclasses.replace(ADDING, layers=layers, **more), new=[0.0, 0.5], renewed=[0.1, 0.9])
    return sd.Experiment("x", grid, updates=4, chunk=2, probes=())


def test_a_grid_of_their_numbers_goes_on_after_a_kill_with_the_same_bits_and_starts_another_run(tmp_path):
    def killed(chunk):
        raise RuntimeError("killed")

    straight = sd.run(runs(), tmp_path / "straight", verify=False)
    with pytest.raises(RuntimeError, match="killed"):
        sd.run(runs(), tmp_path / "out", verify=False, checkpoint_seconds=0.0, on_chunk=killed)
    out = sd.run(runs(), tmp_path / "out", verify=False)
    assert digests(out) == digests(straight)
    ends = [sd.restore(out, run).layers for run in range(4)]
    squares, variances = (
        np.stack(of)
        for of in zip(*((a["statistics"]["square"], b.statistics.x.variance) for a, b in ends), strict=True)
    )
    np.testing.assert_array_equal(squares[:2], 2.0)  # new = 0 keeps what it began with
    assert np.abs(squares[2:] - 2).min() > 1e-2
    assert np.abs(variances[1] - variances[0]).min() > 1e-3

    # They come along with parameters, and begin as always where they are None.
    last = sd.restore(out, 3)
    bare = last.layers[0] | {"statistics": None}, last.layers[1]._replace(statistics=None)
    still = RunningRMS(3, 0.0), sd.BatchNormDrive(sd.GRU(2), renewed=0.0)
    one = sd.Experiment("x", dataclasses.replace(ADDING, layers=still), updates=2, probes=())
    for name, layers, square in (("along", last.layers, squares[3]), ("bare", bare, 2.0)):
        there = sd.run(one, tmp_path / name, verify=False, init=last._replace(layers=layers))
        end = sd.restore(there, 0).layers
        np.testing.assert_array_equal(end[0]["statistics"]["square"], square)
        np.testing.assert_array_equal(end[1].statistics.x.variance, variances[3] if name == "along" else 1.0)


@sd.part
class Reservoir:
    """h' = tanh(W x + U h), U as drawn."""

    hidden: int
    held: bool = True

    def build(self, inputs):
        def init(key):
            w, u = (jax.random.normal(key, (n, self.hidden)) for n in (inputs, self.hidden))
            return {"w": w} | ({"statistics": u} if self.held else {"u": u})

        def step(params, h, x):
            u = params["statistics"] if self.held else jax.lax.stop_gradient(params["u"])
            return jnp.tanh(x @ params["w"] + h @ u)

        def statistics(params, before, xs):
            return params["statistics"]

        return sd.cell(init, step, lambda b: jnp.zeros((*b, self.hidden)), statistics if self.held else None)


def test_statistics_that_do_not_move_are_weights_that_each_seed_draws_and_no_rule_trains(tmp_path):
    spec = dataclasses.replace(ADDING, layers=(Reservoir(3),), optimizer=Decaying())
    out = sd.run(sd.Experiment("x", sd.grid(spec, seeds=2), updates=2, probes=(), keep="log"), tmp_path / "out")
    ends = [[sd.restore(out, run, step=step).layers[0] for step in (0, 2)] for run in (0, 1)]
    for begun, trained in ends:
        np.testing.assert_array_equal(begun["statistics"], trained["statistics"])
        assert np.all(begun["w"] != trained["w"])
    assert np.all(ends[0][0]["statistics"] != ends[1][0]["statistics"])
    with pytest.raises(sd.ConfigError, match="gradient of layer0/u .* weights that stay as drawn must be 'statistics'"):
        verify.gradient_error(having(dataclasses.replace(ADDING, layers=(Reservoir(3, held=False),)), LR), None)


def valid(*layers, **fields):
    return sd.Experiment("x", dataclasses.replace(ADDING, layers=layers, **fields), updates=2, probes=())


def lengths(*layers):
    spec = sd.Spec("adding", steps=T, shortest=2, batch=6, holdout=6, layers=layers)
    return sd.Experiment("x", spec, updates=2, probes=())


LSTM = sd.BatchNorm(sd.LSTM(3), steps=T)


@pytest.mark.parametrize(
    "made, words",
    [
        (lambda: sd.BatchNorm(sd.Dense(3)), "BatchNorm.cell Dense RNN, LSTM or GRU"),
        (lambda: sd.BatchNormDrive(LSTM), "BatchNormDrive.cell BatchNorm"),
        (lambda: sd.BatchNorm(sd.RNN(3), steps=0), "BatchNorm.steps 0"),
        (lambda: sd.BatchNorm(sd.RNN(3), renewed=1.5), "BatchNorm.renewed 1.5 at most 1"),
        (lambda: valid(sd.BatchNorm(sd.RNN(3), steps=7)), "BatchNorm.steps 7 task 5"),
        (lambda: valid(LSTM, batch=1), "batch 1 BatchNorm at least 2"),
        (lambda: valid(LSTM, normalise="batch"), "normalise 'batch' BatchNorm layers"),
        (lambda: valid(LSTM, dropout="zoneout"), "dropout 'zoneout' BatchNorm layers"),
        (lambda: valid(LSTM, segment=1), "segment 1 BatchNorm all steps"),
        (lambda: valid(LSTM, floss=1), "floss 1 BatchNorm(LSTM)"),
        (lambda: valid(sd.BatchNormDrive(sd.RNN(3)), penalties=("omega",)), "omega BatchNormDrive(RNN)"),
        (lambda: valid(sd.BatchNormDrive(sd.GRU(3)), dtype="bfloat16"), "bfloat16 BatchNormDrive running mean"),
        (lambda: valid(LSTM, sd.Zoneout(sd.GRU(3), 0.1), monte_carlo=2), "monte_carlo 2 BatchNorm"),
        (lambda: lengths(LSTM), "BatchNorm several lengths padding"),
        (lambda: stacks.stack(sd.Spec(steps=T, layers=(LSTM,)), "PyTorch", ("lstm",)), "BatchNorm PyTorch"),
        (lambda: valid(RunningRMS(3), dtype="bfloat16"), "bfloat16 RunningRMS running mean"),
        (lambda: lengths(RunningRMS(3)), "RunningRMS several lengths padding"),
        (lambda: valid(Unkept(3)), "layers[0] Unkept 'statistics' init"),
        (lambda: valid(Without(3)), "layers[0] Without 'statistics' init"),
        (lambda: valid(Half(3)), "layers[0] Half 'statistics' each of its cells"),
        (lambda: valid(Wider(3)), "statistics (4,) init (3,)"),
        (lambda: valid(Complex(3)), "statistics complex"),
        (lambda: valid(Raw(3)), "layers[0] Raw statistics mean init"),
    ],
)
def test_what_does_not_fit_is_one_sentence(made, words):
    sentence = refusal(made)
    assert all(word.strip("'") in sentence for word in words.split(" ")), sentence


def test_a_batch_of_one_has_a_running_rms():
    assert valid(RunningRMS(3), batch=1).specs[0].batch == 1


@sd.part
class Kept:
    """A leaky reservoir, as drawn by each seed, over inputs that a running mean square scales; the readout learns."""

    hidden: int = 3
    moves: bool = True

    def init(self, key):
        w, u, v = (
            jax.random.normal(k, (n, self.hidden)) for k, n in zip(jax.random.split(key, 3), (2, 3, 1), strict=True)
        )
        return {"v": v[0], "statistics": {"w": w, "u": u, "square": jnp.full(2, 2.0)}}

    def loss(self, params, batch, key):
        kept, v = params["statistics"], params["v"]

        def step(h, x):
            return jnp.tanh(x / jnp.sqrt(kept["square"]) @ kept["w"] + h @ kept["u"]), None

        h = sd.watch.scan(step, jnp.zeros((batch.xs.shape[1], self.hidden)), batch.xs, name="reservoir")[0]
        loss = batch.mean((h @ v - batch.ys.reshape(-1)) ** 2)
        if not self.moves:
            return loss
        square = 0.5 * kept["square"] + 0.5 * jnp.mean(batch.xs**2, axis=(0, 1))
        return loss, {"statistics": {**kept, "square": square}}


@pytest.mark.parametrize("moves", [True, False])
def test_a_network_that_is_no_stack_keeps_statistics_that_its_loss_moves(moves, tmp_path):
    """Whatever an optimiser and a penalty make of all leaves; a look moves nothing."""
    spec = dataclasses.replace(ADDING, network=Kept(moves=moves), optimizer=Decaying(), penalties=(Everything(),))
    runs = sd.grid(spec, seeds=2)
    out = sd.run(sd.Experiment("x", runs, updates=3, probe_every=1, keep=range(4)), tmp_path / "out")
    for run in (0, 1):
        ends = [sd.restore(out, run, step=step) for step in range(4)]
        square = np.full(2, 2.0)
        for n, (before, after) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            for name in ("w", "u"):
                np.testing.assert_array_equal(before["statistics"][name], after["statistics"][name])
            assert np.all(before["v"] != after["v"])
            xs = np.float64(train.training_batch(runs.at(run), None, n).xs)
            square = 0.5 * square + 0.5 * np.mean(xs**2, axis=(0, 1)) if moves else square
            np.testing.assert_allclose(after["statistics"]["square"], square, rtol=1e-5)
    assert np.all(sd.restore(out, 0)["statistics"]["u"] != sd.restore(out, 1)["statistics"]["u"])
    assert sd.load(out).group.values.tolist() == ["v"]


@sd.part
class Shapes(Kept):
    def loss(self, params, batch, key):
        return Kept.loss(self, params, batch, key)[0], {"statistics": {"square": jnp.ones(2)}}


@sd.part
class Bits(Kept):
    def loss(self, params, batch, key):
        loss, kept = Kept.loss(self, params, batch, key)
        return loss, {"statistics": jax.tree.map(lambda leaf: leaf * 1j, kept["statistics"])}


@sd.part
class Named(Kept):
    variables = {"statistics": sd.Variable((), "a name that is taken")}


@sd.part
class Nothing(Kept):
    def init(self, key):
        return {"statistics": Kept.init(self, key)}


@sd.part
class Forgotten(Kept):
    def init(self, key):
        begun = Kept.init(self, key)
        return {"v": begun["v"], "kept": begun["statistics"]}

    def loss(self, params, batch, key):
        return Kept.loss(self, {"v": params["v"], "statistics": params["kept"]}, batch, key)


@pytest.mark.parametrize(
    ("of", "dtype", "told"),
    [
        (Shapes, "float32", "comes with statistics {'square': (2,)}; they must be as init's, {'square': (2,), 'u'"),
        (Bits, "float32", "comes with statistics an array of complex64; they must be as init's"),
        (Kept, "bfloat16", "whose loss moves statistics, and dtype is 'bfloat16', too few digits for a mean"),
        (Named, "float32", "whose variables have 'statistics', the name of what is kept; take another"),
        (Nothing, "float32", "whose init gives parameters without numbers; there must be something to train"),
        (Forgotten, "float32", "whose loss comes with ['statistics']; it must be a dict of ['accuracy']"),
    ],
)
def test_statistics_that_a_network_cannot_keep_are_a_sentence(of, dtype, told):
    def whole():
        return sd.grid(dataclasses.replace(ADDING, network=of(), dtype=dtype))

    assert told in refusal(whole)
