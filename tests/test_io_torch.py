"""Laws of `seqdyn.io`: out and back no bit is lost, the other framework makes the same of the weights, outputs and
gradients alike, and what means something else there is one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refusals import refusal
from _weights import IDS, XS, D, H, close, drawn, known, same, spec

import seqdyn
from seqdyn import ConfigError, io
from seqdyn.learn.model import acting_params

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra 'torch')")

COVERED = [  # each pair of cell, levels, directions and biases once; and the ways to read and to be read
    (spec("rnn"), True),
    (spec("rnn", 2, True, activation="relu", readout="every"), False),
    (spec("lstm", 1, True, features=0, vocabulary=5, embedding=D), False),
    (spec("lstm", 2, False), True),
    (spec("gru", 1, False, features=0, vocabulary=5), False),
    (spec("gru", 2, True, readout="mean"), True),
]
pytestmark = pytest.mark.torch
covered = pytest.mark.parametrize(("of", "bias"), COVERED, ids=lambda one: getattr(one, "label", one))


def without_second_biases(state, cell):
    """Of a gradient: two biases that add up have the same one, of which ours is one."""
    blocks = {name: value.reshape(-1, H) for name, value in state.items() if "bias_hh" in name}
    for name, block in blocks.items():
        first = state[name.replace("_hh_", "_ih_")].reshape(-1, H)
        adding = 2 if cell == "gru" else len(block)
        np.testing.assert_allclose(block[:adding], first[:adding], atol=1e-14)
        block[:adding] = 0
    return state


def weighed(grads, bias):
    """Without the gradients of biases where there are none."""
    return grads if bias else grads._replace(layers=tuple((layer.w, layer.u) for layer in grads.layers))


class Net(torch.nn.Module):
    """As people write it."""

    def __init__(self, of, bias):
        super().__init__()
        made = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[of.cell]
        more = {"nonlinearity": of.activation} if of.cell == "rnn" else {}
        inputs = of.embedding or of.vocabulary or of.features
        if of.embedding:
            self.embedding = torch.nn.Embedding(of.vocabulary, of.embedding)
        given = {"bias": bias, "bidirectional": of.bidirectional, "batch_first": True} | more
        self.rnn = made(inputs, H, len(of.hidden), **given)
        self.readout = torch.nn.Linear(H * (1 + of.bidirectional), seqdyn.data.tasks.task_of(of).outputs)
        self.of = of
        self.to(torch.float64)

    def forward(self, xs):
        if self.of.vocabulary:
            xs = (
                self.embedding(xs)
                if self.of.embedding
                else torch.nn.functional.one_hot(xs, self.of.vocabulary).double()
            )
        hs, last = self.rnn(xs)
        h = last[0] if self.of.cell == "lstm" else last
        tops = torch.cat([*h[-2:]] if self.of.bidirectional else [h[-1]], -1)
        return self.readout({"every": hs, "mean": hs.mean(1), "last": tops}[self.of.readout])


@covered
def test_pytorch_computes_what_we_do_and_its_weights_return_bit_for_bit(of, bias):
    params = drawn(of, bias)
    net = Net(of, bias)
    net.load_state_dict(io.to_torch(params, of, bias=bias))
    same(io.from_torch(net, of, bias=bias), params)
    found = net(torch.tensor(IDS if of.vocabulary else XS))
    found.sin().sum().backward()
    ours = known(of, params)
    close(found.detach().numpy(), ours.predictions)
    grads = without_second_biases({name: p.grad.numpy() for name, p in net.named_parameters()}, of.cell)
    close(weighed(io.from_torch(grads, of, bias=bias), bias), weighed(ours.grads, bias))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@covered
def test_no_bit_is_lost_on_the_way_to_pytorch_and_back(of, bias, dtype):
    of = seqdyn.Spec(**{**vars(of), "dtype": dtype, "decided": ()})
    params = drawn(of, odd=True)
    same(io.from_torch(io.to_torch(params, of), of), params)
    back = io.to_torch(io.from_torch(state := Net(of, True).to(getattr(torch, dtype)).state_dict(), of), of)
    for name in state:  # of two biases that add up the sum is what is known
        end = name.rpartition("_l")[2]
        if "bias_" in name and ".bias_" in name:
            a, b = (sum(s[f"rnn.bias_{side}_l{end}"] for side in ("ih", "hh")) for s in (state, back))
            assert torch.equal(a[: 2 * H], b[: 2 * H])
        else:
            assert torch.equal(state[name], back[name])


def test_modules_of_other_names_are_found_or_said():
    of, params = COVERED[2][0], drawn(COVERED[2][0])
    state = io.to_torch(params, of, rnn="module.lstm", readout="fc.", embedding="words")
    assert sorted({name.rpartition(".")[0] for name in state}) == ["fc", "module.lstm", "words"]
    same(io.from_torch(state, of), params)
    alone = io.to_torch(params, of, rnn="", readout=None, embedding=None)
    torch.nn.LSTM(D, H, bidirectional=True).double().load_state_dict(alone)
    found = io.from_torch(alone, of)
    assert found.readout is None and found.embedding is None
    same(found.layers, params.layers)
    two = state | {"head.weight": state["fc.weight"], "head.bias": state["fc.bias"]}
    with pytest.raises(ConfigError, match="each of 'fc', 'head' may be the readout; say readout=."):
        io.from_torch(two, of)
    with pytest.raises(ConfigError, match="state has head.weight, which lstm has no place for; leave it out."):
        io.from_torch(two, of, readout="fc")


def test_a_linear_layer_below_is_not_taken_for_the_readout():
    of = spec("gru", features=3)  # as many as classes: the layer below is of the readout's shape
    params = drawn(of)
    above = io.to_torch(params, of, readout="fc")
    below = {name: above[name] for name in sorted(above)}
    assert next(iter(below)).startswith("fc.")
    same(io.from_torch(above, of), params)
    with pytest.raises(
        ConfigError, match="'fc' stands before 'rnn' in state and may be a layer below it, which no spec"
    ):
        io.from_torch(below, of)
    same(io.from_torch(below, of, readout="fc"), params)


def test_what_was_imported_is_a_copy():
    net = torch.nn.GRU(D, H).double()
    of = spec("gru")
    params = io.from_torch(net, of)
    before = jax.tree.map(np.array, params)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2.0)
    same(params, before)


def state(*drop, cell="lstm", **more):
    made = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell](D, H, **more).double().state_dict()
    return {name: value for name, value in made.items() if name not in drop}


REFUSED = {
    "weight_hh_l0 of state is a tensor that is no array": lambda: io.from_torch(
        torch.nn.LSTM(D, H, device="meta").state_dict() | {"weight_ih_l0": torch.zeros(4 * H, D)}, spec()
    ),
    "weight_ih_l0 of state is a tensor that is no array": lambda: io.from_torch(
        state() | {"weight_ih_l0": torch.zeros(4 * H, D).to_sparse()}, spec()
    ),
    "rnn, readout, embedding are (3, 'readout', 'embedding'); each": lambda: io.to_torch(drawn(spec()), spec(), rnn=3),
    "cell is 'gru_reset_before', with the reset before the product; take 'gru'": lambda: io.from_torch(
        state(cell="gru"), spec("gru_reset_before")
    ),
    "weight_ih_l0 of the shape (12, 2); nn.GRU has (9, 2), the gates r, z, n of width 3": lambda: io.from_torch(
        state(), spec("gru")
    ),
    "state has no bias_hh_l0; nn.LSTM of hidden (3,) has one; of a module without": lambda: io.from_torch(
        state("bias_hh_l0"), spec()
    ),
    "state has no bias_ih_l0;": lambda: io.from_torch(state(bias=False), spec()),
    "state has no weight_ih_l0_reverse": lambda: io.from_torch(state(), spec("lstm", 1, True)),
    "state has weight_ih_l1, which lstm has no place for": lambda: io.from_torch(state(num_layers=2), spec()),
    "state has weight_ih_l0_reverse, which": lambda: io.from_torch(state(bidirectional=True), spec()),
    "weight_hh_l0 of the shape (12, 1)": lambda: io.from_torch(state(proj_size=1), spec()),
    "state has no weight_ih_l0; it must be": lambda: io.from_torch(torch.nn.Linear(2, 3), spec()),
    "state is a type; it must be a module": lambda: io.from_torch(torch.nn.LSTM, spec()),
    "state has parametrizations.weight_hh_l0.original0, of which PyTorch makes": lambda: io.from_torch(
        torch.nn.utils.parametrizations.weight_norm(torch.nn.LSTM(D, H), "weight_hh_l0"), spec()
    ),
    "state has readout.weight_orig, of which PyTorch makes": lambda: io.from_torch(
        state() | {f"readout.{end}": torch.ones(1, H) for end in ("weight_orig", "weight_mask")}, spec()
    ),
    "state has readout.weight_v, of which PyTorch makes": lambda: io.from_torch(
        state() | {f"readout.{end}": torch.ones(1, H) for end in ("weight_g", "weight_v")}, spec()
    ),
    "fc._packed_params of state is a tuple that is no array": lambda: io.from_torch(
        state() | {"fc._packed_params": (torch.zeros(2, 2, requires_grad=True), None)}, spec()
    ),
    "state is a list": lambda: io.from_torch([1], spec()),
    "spec is 'lstm'; it must be a Spec": lambda: io.from_torch(state(), "lstm"),
    "nonlinearity is 'relu' and activation is 'tanh'": lambda: io.from_torch(
        torch.nn.RNN(D, H, nonlinearity="relu"), spec("rnn")
    ),
    "activation is 'elu'; for PyTorch it must be one of tanh, relu": lambda: io.from_torch(
        state(cell="rnn"), spec("rnn", activation="elu")
    ),
    "normalise is 'layer', which PyTorch has no counterpart of": lambda: io.from_torch(
        state(), spec(normalise="layer")
    ),
    "cell is 'dense'; for PyTorch it must be one of rnn, lstm, gru": lambda: io.from_torch(state(), spec("dense")),
    "hidden is (3, 4); nn.LSTM has one width": lambda: io.from_torch(
        state(), seqdyn.Spec("labelled", features=D, hidden=(3, 4), cell="lstm")
    ),
    "dropout is 'zoneout', which acts": lambda: io.to_torch(drawn(spec()), spec(dropout="zoneout")),
    "bias is False and the biases of l0 are not 0": lambda: io.to_torch(drawn(spec()), spec(), bias=False),
    "params has layer0/bn, [3], which lstm has not": lambda: io.to_torch(drawn(spec("gru")), spec()),
    "params has layer0/w [2, 3]; lstm has [2, 12]": lambda: io.to_torch(drawn(spec("rnn")), spec()),
    "spec is missing; give it after params": lambda: io.to_torch(drawn(spec())),
    "layer0/w of what PyTorch gives has nan; it must be finite": lambda: io.from_torch(
        state() | {"weight_ih_l0": torch.full((4 * H, D), float("nan"))}, spec()
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_another_convention_is_one_sentence(sentence):
    assert sentence in refusal(REFUSED[sentence])


def test_gates_of_l0_have_met_the_weights_that_leave():
    of = spec(penalties=("l0",))
    params = drawn(of)
    params = params._replace(log_alpha=jax.tree.map(lambda leaf: -9.0 * jnp.sign(leaf), params.log_alpha))
    state = io.to_torch(params, of)
    same(io.from_torch(state, of).layers, acting_params(of, params).layers)
    assert 0 < np.mean(state["rnn.weight_hh_l0"].numpy() == 0) < 1
