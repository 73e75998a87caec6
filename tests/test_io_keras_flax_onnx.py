"""Laws of `seqdyn.io` for Keras, Linen, NNX and ONNX: the same of outputs and gradients, bits and sentences as
`test_io_torch` has of PyTorch."""

import os
import resource
import signal
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from _refusals import refusal
from _weights import IDS, LENGTHS, XS, D, H, T, close, drawn, gradient_of_lengths, known, of_lengths, same, spec, total  # noqa: E402
from flax import nnx  # noqa: E402

from seqdyn import ConfigError, io  # noqa: E402
from seqdyn.backend import compiled  # noqa: E402

keras = pytest.importorskip("keras", reason="Keras is not installed (the extra 'keras')")
onnx = pytest.importorskip("onnx", reason="ONNX is not installed (the extra 'onnx')")
reference = pytest.importorskip("onnx.reference")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.fixture(autouse=True)
def _their_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Theirs(NamedTuple):
    predictions: Any
    grads: Any
    """As a `Model` of ours."""


def linen(of, params, xs):
    module, variables = io.to_linen(params, of)

    def loss(variables):
        found = module.apply(variables, xs)
        return total(found), found

    (_, found), grads = compiled(jax.value_and_grad(loss, has_aux=True))(variables)
    return Theirs(found, io.from_linen(grads, of))


def of_nnx(of, params, xs):
    module = io.to_nnx(params, of)

    def loss(module):
        found = module(xs)
        return total(found), found

    (_, found), grads = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(module)
    nnx.update(module, grads)
    if of.cell == "gru":  # of two biases that add up, ours is the first
        for _, one in nnx.iter_modules(module):
            if isinstance(one, nnx.GRUCell):
                one.dense_h.bias[...] = one.dense_h.bias[...].at[: 2 * H].set(0)
    return Theirs(found, io.from_nnx(module, of))


def of_keras(of, params, xs):
    model = io.to_keras(params, of)
    xs = jax.nn.one_hot(xs, of.vocabulary) if of.vocabulary and not of.embedding else xs

    def loss(weights):
        found = model.stateless_call(weights, model.non_trainable_variables, xs)[0]
        return total(found), found

    weights = [variable.value for variable in model.trainable_variables]
    (_, found), grads = compiled(jax.value_and_grad(loss, has_aux=True))(weights)
    for variable, grad in zip(model.trainable_variables, grads, strict=True):
        second = variable.path.endswith("gru_cell/bias") and of.cell == "gru"
        variable.assign(grad.at[1, : 2 * H].set(0) if second else grad)
    return Theirs(found, io.from_keras(model, of))


def f32(*given, **more):
    return spec(*given, dtype="float32", **more)


slow, wide = pytest.mark.slow, pytest.mark.wide
IDS_IN = {"features": 0, "vocabulary": 5}
CASES = [
    pytest.param(linen, spec("rnn", 2, True, activation="relu", readout="every"), marks=wide),
    pytest.param(linen, spec("lstm", 1, True, embedding=D, **IDS_IN)),
    pytest.param(linen, spec("lstm", 2, False, readout="mean"), marks=wide),
    pytest.param(linen, spec("gru", 1, False, readout="sum", **IDS_IN), marks=wide),
    pytest.param(linen, spec("gru", 2, True), marks=slow),
    pytest.param(of_nnx, spec("rnn", 1, False, readout="sum"), marks=wide),
    pytest.param(of_nnx, spec("rnn", 2, True, activation="relu", readout="every"), marks=slow),
    pytest.param(of_nnx, spec("lstm", 2, False, embedding=D, **IDS_IN), marks=wide),
    pytest.param(of_nnx, spec("gru", 1, False, readout="mean")),
    pytest.param(of_nnx, spec("gru", 2, True, **IDS_IN), marks=slow),
    pytest.param(of_keras, f32("rnn", 2, True, activation="relu", readout="every"), marks=wide),
    pytest.param(of_keras, f32("lstm", 1, True, embedding=D, **IDS_IN), marks=slow),
    pytest.param(of_keras, f32("lstm", 2, False, readout="mean"), marks=wide),
    pytest.param(of_keras, f32("gru", 1, False, readout="mean")),
    pytest.param(of_keras, f32("gru", 1, True), marks=wide),
    pytest.param(of_keras, f32("gru", 2, False, embedding=D, **IDS_IN), marks=wide),
    pytest.param(of_keras, f32("gru_reset_before", 1, False), marks=wide),
    pytest.param(of_keras, f32("gru_reset_before", 2, True, readout="every"), marks=slow),
]


def named(one):
    return getattr(one, "__name__", getattr(one, "label", None))


@pytest.mark.parametrize(("framework", "of"), CASES, ids=named)
def test_another_framework_computes_what_we_do_gradients_too(framework, of):
    params, xs = drawn(of), jnp.asarray(IDS if of.vocabulary else XS, None if of.vocabulary else of.dtype)
    theirs, ours = framework(of, params, xs), known(of, params)
    tolerance = 1e-12 if of.dtype == "float64" else 1e-6
    close(theirs.predictions, ours.predictions, tolerance)
    close(theirs.grads, ours.grads, tolerance)


# --- sequences of several lengths ---------------------------------------------------------------------------


def by_linen(of, params, xs, path):
    module, variables = io.to_linen(params, of)
    return compiled(module.apply)(variables, xs, LENGTHS)


def by_nnx(of, params, xs, path):
    return nnx.jit(lambda module, xs: module(xs, LENGTHS))(io.to_nnx(params, of), xs)


def by_keras(of, params, xs, path):
    xs = np.eye(of.vocabulary)[xs] if of.vocabulary and not of.embedding else xs
    t = np.arange(T)
    mask = t >= T - LENGTHS[:, None] if of.pad == "before" else t < LENGTHS[:, None]
    model = io.to_keras(params, of, lengths=True)
    same(io.from_keras(model, of), params)
    return model([xs, mask])


def by_onnx(of, params, xs, path):
    session = onnxruntime.InferenceSession(str(io.to_onnx(path, params, of, lengths=True)))
    return session.run(None, {"xs": xs, "sequence_lens": np.int32(LENGTHS)})[0]


# Each framework with each readout, side of the padding, and number of directions; cells and what is read in turn
OF_LENGTHS = [
    pytest.param(by_linen, f32("lstm", 2, True, pad="after"), marks=wide),
    pytest.param(by_linen, f32("gru", 1, True, readout="mean", embedding=D, **IDS_IN), marks=slow),
    pytest.param(by_linen, f32("rnn", 1, False, pad="after", readout="sum"), marks=wide),
    pytest.param(by_linen, f32("lstm", 1, False, readout="every"), marks=wide),
    pytest.param(by_nnx, f32("gru", 2, True)),
    pytest.param(by_nnx, f32("lstm", 1, True, pad="after", readout="mean"), marks=slow),
    pytest.param(by_nnx, f32("rnn", 1, True, readout="every"), marks=wide),
    pytest.param(by_keras, f32("gru", 2, True, pad="after"), marks=slow),
    pytest.param(by_keras, f32("lstm", 1, True, embedding=D, **IDS_IN), marks=wide),
    pytest.param(by_keras, f32("gru_reset_before", 1, False, pad="after", readout="mean"), marks=wide),
    pytest.param(by_keras, f32("rnn", 1, True, readout="mean", **IDS_IN), marks=slow),
    pytest.param(by_keras, f32("lstm", 1, False, readout="every"), marks=wide),
    pytest.param(by_onnx, f32("gru", 2, True)),
    pytest.param(by_onnx, f32("lstm", 1, True, pad="after", embedding=D, **IDS_IN), marks=slow),
    pytest.param(by_onnx, f32("gru_reset_before", 1, True, readout="mean", **IDS_IN), marks=slow),
    pytest.param(by_onnx, f32("rnn", 1, False, pad="after", readout="mean"), marks=wide),
    pytest.param(by_onnx, f32("lstm", 2, True, readout="sum"), marks=slow),
    pytest.param(by_onnx, f32("gru", 2, True, readout="every"), marks=slow),
]


@pytest.mark.parametrize(("framework", "of"), OF_LENGTHS, ids=named)
def test_another_framework_leaves_out_the_padding_that_we_leave_out(framework, of, tmp_path):
    params = drawn(of)
    xs = IDS if of.vocabulary else np.float32(XS)
    ours, count = of_lengths(of, params)
    found = np.asarray(framework(of, params, xs, tmp_path / "net.onnx"))
    close(found[count], ours[count], 1e-6)


def grads_of_linen(of, params):
    module, variables = io.to_linen(params, of)
    return io.from_linen(compiled(jax.grad(lambda v: total(module.apply(v, np.float32(XS), LENGTHS))))(variables), of)


def grads_of_nnx(of, params):
    module = io.to_nnx(params, of)
    nnx.update(module, nnx.jit(nnx.grad(lambda module: total(module(np.float32(XS), LENGTHS))))(module))
    return io.from_nnx(module, of)


def grads_of_keras(of, params):
    model, t = io.to_keras(params, of, lengths=True), np.arange(T)
    mask = t >= T - LENGTHS[:, None] if of.pad == "before" else t < LENGTHS[:, None]

    def loss(weights):
        return total(model.stateless_call(weights, model.non_trainable_variables, [np.float32(XS), mask])[0])

    variables = model.trainable_variables
    for variable, grad in zip(variables, compiled(jax.grad(loss))([v.value for v in variables]), strict=True):
        variable.assign(grad)
    return io.from_keras(model, of)


GRADIENTS = [
    pytest.param(grads_of_linen, f32("gru", 1, True), marks=slow),
    pytest.param(grads_of_nnx, f32("rnn", 2, True, pad="after", readout="mean"), marks=slow),
    pytest.param(grads_of_keras, f32("lstm", 1, True), marks=slow),
    pytest.param(grads_of_keras, f32("gru_reset_before", 1, False, pad="after", readout="mean"), marks=wide),
]


@pytest.mark.parametrize(("framework", "of"), GRADIENTS, ids=named)
def test_no_gradient_comes_from_the_padding_in_another_framework(framework, of):
    params = drawn(of)
    close(framework(of, params), gradient_of_lengths(of, params), 1e-6)


@pytest.mark.parametrize("length", [0, -1, T + 1])
def test_a_length_that_no_sequence_has_is_one_sentence(length):
    of, lengths = spec(), np.array([2, length, 1])
    module, variables = io.to_linen(drawn(of), of)
    with pytest.raises(ConfigError, match=f"seq_lengths has {length}; each must be from 1 to the {T} steps of xs"):
        module.apply(variables, XS, lengths)
    with pytest.raises(ConfigError, match=f"seq_lengths has {length}; each must be from 1 to the {T} steps of xs"):
        io.to_nnx(drawn(of), of)(XS, lengths)


def test_lengths_that_mean_nothing_are_one_sentence(tmp_path):
    read, of = spec(mask=False), spec()
    for leave in (io.to_keras, lambda *given, **more: io.to_onnx(tmp_path / "net.onnx", *given, **more)):
        with pytest.raises(ConfigError, match="lengths is True and mask is False: padding is read like anything else"):
            leave(drawn(read), read, lengths=True)
        for wrong in (4, LENGTHS):
            with pytest.raises(ConfigError, match=r"lengths is .*; it must be True or False"):
                leave(drawn(of), of, lengths=wrong)
    for by, text in (
        (read, "mask is False"),
        (of, r"int64 of the shape \(1,\); it must be whole numbers, one for each"),
    ):
        module, variables = io.to_linen(drawn(by), by)
        with pytest.raises(ConfigError, match=text):
            module.apply(variables, XS, LENGTHS[:1])
        with pytest.raises(ConfigError, match=text):
            io.to_nnx(drawn(by), by)(XS, LENGTHS[:1])
    assert not list(tmp_path.iterdir())


# --- bits ---------------------------------------------------------------------------------------------------

BOTH_WAYS = [
    pytest.param(spec("rnn", 2, True, activation="relu", readout="every"), marks=slow),
    spec("lstm", 1, True, embedding=D, **IDS_IN),
    spec("gru", 1, False, readout="mean"),
    pytest.param(spec("gru", 2, True, dtype="float32"), marks=slow),
    spec("gru_reset_before", 1, False),
]


@pytest.mark.parametrize("of", BOTH_WAYS, ids=named)
def test_no_bit_is_lost_on_the_way_out_and_back(of):
    params = drawn(of, odd=True)
    same(io.from_keras(io.to_keras(params, of), of), params)
    if of.cell != "gru_reset_before":
        same(io.from_linen(io.to_linen(params, of)[1], of), params)
        same(io.from_nnx(io.to_nnx(params, of), of), params)


# --- ONNX ---------------------------------------------------------------------------------------------------

ONNX = [
    pytest.param(spec("rnn", 2, True, activation="relu", readout="every"), marks=slow),
    pytest.param(spec("rnn", 1, False, readout="mean", **IDS_IN), marks=slow),
    pytest.param(spec("lstm", 2, False, readout="sum"), marks=slow),
    spec("lstm", 1, True, embedding=D, **IDS_IN),
    spec("gru", 1, False, readout="mean"),
    pytest.param(spec("gru", 2, True), marks=slow),
    spec("gru_reset_before", 1, False),
    pytest.param(spec("gru_reset_before", 2, True, readout="every"), marks=slow),
]


@pytest.mark.parametrize("of", ONNX, ids=named)
def test_onnx_computes_what_we_do(of, tmp_path):
    """onnxruntime in float32, which is all that it has; ONNX's own reference in float64."""
    params, xs = drawn(of), IDS if of.vocabulary else XS
    ours = known(of, params).predictions
    path = io.to_onnx(tmp_path / "exact.onnx", params, of)
    if of.activation != "relu":  # which the reference has not
        close(reference.ReferenceEvaluator(str(path)).run(None, {"xs": xs})[0], ours)
    single = type(of)(**{**vars(of), "dtype": "float32", "decided": ()})
    path = io.to_onnx(tmp_path / "net.onnx", jax.tree.map(jnp.float32, params), single)
    session = onnxruntime.InferenceSession(str(path))
    found = session.run(None, {"xs": xs if of.vocabulary else np.float32(xs)})[0]
    close(found, ours, 1e-6)
    more = np.concatenate([xs, xs]), np.concatenate([found, found])  # of any number of sequences
    close(session.run(None, {"xs": more[0] if of.vocabulary else np.float32(more[0])})[0], more[1], 1e-6)


@pytest.mark.parametrize("cell", ["gru", "gru_reset_before"])
def test_onnx_says_where_the_reset_stands(cell, tmp_path):
    of = spec(cell)
    graph = onnx.load(io.to_onnx(tmp_path / "net.onnx", drawn(of), of)).graph
    (node,) = [node for node in graph.node if node.op_type == "GRU"]
    said = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert said["linear_before_reset"] == (cell == "gru")


# --- what people bring --------------------------------------------------------------------------------------


def test_nnxs_gru_without_a_recurrent_bias_has_none_here():
    rngs = nnx.Rngs(0)
    cell = nnx.GRUCell(D, H, param_dtype=float, rngs=rngs)
    found = io.from_nnx(nnx.RNN(cell, rngs=rngs), spec("gru"))
    assert not found.layers[0].bn.any() and found.readout is None
    np.testing.assert_array_equal(found.layers[0].u, cell.dense_h.kernel[...])


def k(layer, *more):
    return keras.Sequential([keras.Input((None, D)), layer, *more])


def cells(*names, bias=True, inputs=D):
    cell = {f"i{g}": {"kernel": np.ones((inputs, H)), "bias": np.ones(H)} for g in "rzn"}
    cell |= {f"h{g}": {"kernel": np.ones((H, H))} for g in "rzn"}
    cell["hn"] |= {"bias": np.ones(H)} if bias else {}
    return {name: cell for name in names}


def test_linens_cells_are_taken_in_the_order_of_their_numbers():
    below, above = cells("GRUCell_0"), cells(*(f"GRUCell_{i}" for i in range(1, 11)), inputs=H)
    params = {name: jax.tree.map(lambda x, i=i: i * x, cell) for i, (name, cell) in enumerate((below | above).items())}
    found = io.from_linen(jax.tree.map(np.array, params), spec("gru", 11))  # its names are sorted, 10 before 2
    assert [layer.bn[0] for layer in found.layers] == [*range(11)]


def odd(part, **arrays):
    cell = cells("GRUCell_0")["GRUCell_0"]
    return {"GRUCell_0": cell | {part: arrays}}


L = keras.layers
REFUSED = {
    "has reset_after=False and cell is 'gru'; take 'gru_reset_before'": lambda: io.from_keras(
        k(L.GRU(H, reset_after=False)), spec("gru")
    ),
    "has reset_after=True and cell is 'gru_reset_before'; take 'gru'": lambda: io.from_keras(
        k(L.GRU(H)), spec("gru_reset_before")
    ),
    "is a LSTM; for cell 'gru' it must be a GRU": lambda: io.from_keras(k(L.LSTM(H)), spec("gru")),
    "has no bias; of layers with use_bias=False say bias=False": lambda: io.from_keras(
        k(L.LSTM(H, use_bias=False)), spec()
    ),
    "has the recurrent_activation 'hard_sigmoid'; lstm has 'sigmoid'": lambda: io.from_keras(
        k(L.LSTM(H, recurrent_activation="hard_sigmoid")), spec()
    ),
    "has the activation 'relu'; rnn has 'tanh'": lambda: io.from_keras(
        k(L.SimpleRNN(H, activation="relu")), spec("rnn")
    ),
    "is a Bidirectional and bidirectional is False": lambda: io.from_keras(k(L.Bidirectional(L.LSTM(H))), spec()),
    "has merge_mode 'sum'": lambda: io.from_keras(k(L.Bidirectional(L.LSTM(H), "sum")), spec("lstm", 1, True)),
    "has go_backwards=True": lambda: io.from_keras(k(L.LSTM(H, go_backwards=True)), spec()),
    "a LayerNormalization with weights, which lstm has no place for": lambda: io.from_keras(
        k(L.LSTM(H), L.LayerNormalization()), spec()
    ),
    "behind a Dense, which lstm has no place for": lambda: io.from_keras(k(L.Dense(D), L.LSTM(H)), spec()),
    "the activation 'ReLU'; a readout has none": lambda: io.from_keras(k(L.LSTM(H), L.Dense(3, L.ReLU())), spec()),
    "the activation 'relu'; a readout has none": lambda: io.from_keras(k(L.LSTM(H), L.Dense(3, "relu")), spec()),
    "what Keras gives has layer0/w [2, 20]; lstm has [2, 12]": lambda: io.from_keras(k(L.LSTM(5)), spec()),
    "has 0 arrays of weights; call the model once": lambda: io.from_keras(L.LSTM(H), spec()),
    "seen has 0 arrays of weights; call": lambda: io.from_keras(
        [*k(L.LSTM(H)).layers, L.Dense(3, name="seen")], spec()
    ),
    "ids has 0 arrays of weights; call": lambda: io.from_keras(
        L.Embedding(5, D, name="ids"), spec(features=0, vocabulary=5, embedding=D)
    ),
    "both has go_backwards=True": lambda: io.from_keras(
        k(L.Bidirectional(L.LSTM(H, go_backwards=True), backward_layer=L.LSTM(H), name="both")), spec("lstm", 1, True)
    ),
    "model is a ndarray; it must be a model or a layer": lambda: io.from_keras([np.ones(3)], spec()),
    "readout is 'sum', for which Keras has no layer": lambda: io.to_keras(drawn(spec()), spec(readout="sum")),
    "bias is False and the biases are not 0": lambda: io.to_keras(drawn(spec()), spec(), bias=False),
    "cell is 'gru_reset_before', with the reset before the product; take 'gru'; for Flax": lambda: io.to_linen(
        drawn(spec("gru_reset_before")), spec("gru_reset_before")
    ),
    "GRUCell_0 is a cell of kind 'gru'; cell is 'lstm'": lambda: io.from_linen(cells("GRUCell_0"), spec()),
    "GRUCell_0 has no 'bias', which a cell of Flax has": lambda: io.from_linen(
        cells("GRUCell_0", bias=False), spec("gru")
    ),
    "there are 2 cells (a0, a1); gru with hidden (3,) has 1": lambda: io.from_linen(cells("a1", "a0"), spec("gru")),
    "the order of the cells there, back is not in their names; give their paths": lambda: io.from_linen(
        cells("there", "back"), spec("gru", 1, True)
    ),
    "variables is a list; it must be what module.init returns": lambda: io.from_linen([], spec()),
    "there are parameters 'LayerNorm_0', which gru has no place for": lambda: io.from_linen(
        cells("GRUCell_0") | {"LayerNorm_0": {"scale": np.ones(3)}}, spec("gru")
    ),
    "variables has params that are a ndarray": lambda: io.from_linen({"params": np.ones(3)}, spec()),
    "layers is 'GRUCell_0'; it must be a list": lambda: io.from_linen(cells("GRUCell_0"), spec(), layers="GRUCell_0"),
    "layers is 3; it must be a list": lambda: io.from_linen(cells("GRUCell_0"), spec(), layers=3),
    "readout is 3, where there is nothing": lambda: io.from_linen(cells("GRUCell_0"), spec("gru"), readout=3),
    "has a hr/kernel that is missing": lambda: io.from_linen(odd("hr", bias=np.ones(H)), spec("gru")),
    "has a hr/kernel that is of the shape ()": lambda: io.from_linen(odd("hr", kernel=1.0), spec("gru")),
    "which are of no one cell": lambda: io.from_linen(odd("hr", kernel=np.ones((H + 1, H))), spec("gru")),
    "cannot be written (File exists)": lambda: io.to_onnx(f"{__file__}/net.onnx", drawn(spec()), spec()),
    "cell has another activation_fn than tanh": lambda: io.from_nnx(
        nnx.RNN(nnx.SimpleCell(D, H, activation_fn=nnx.relu, rngs=nnx.Rngs(0))), spec("rnn")
    ),
    "the cell has residual=True": lambda: io.from_nnx(
        nnx.SimpleCell(D, H, residual=True, rngs=nnx.Rngs(0)), spec("rnn")
    ),
    "params has no readout; a file of ONNX holds a whole network": lambda: io.to_onnx(
        "never.onnx", drawn(spec())._replace(readout=None), spec()
    ),
    "activation is 'gelu'; for ONNX it must be one of tanh, relu": lambda: io.to_onnx(
        "never.onnx", drawn(spec("rnn")), spec("rnn", activation="gelu")
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_another_convention_is_one_sentence(sentence):
    assert sentence in refusal(REFUSED[sentence])


def test_an_order_that_names_do_not_say_is_given():
    params = cells("there", "back")
    params["back"] = jax.tree.map(lambda leaf: 2 * leaf, params["back"])
    found = io.from_linen(params, spec("gru", 1, True), layers=["there", "back"])
    assert (found.layers[0].b == 1).all() and (found.layers[1].b == 2).all()


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path):
    of, params = spec("lstm", 20), drawn(spec("lstm", 20))
    ignored, limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))  # as a full disk
        for write in (io.to_onnx, io.save):
            assert "net cannot be written" in refusal(write, tmp_path / "net", params, of)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(tmp_path.iterdir())


def test_no_file_is_overwritten(tmp_path):
    of, params = spec(), drawn(spec())
    for write, name in ((io.to_onnx, "net.onnx"), (io.save, "net.safetensors")):
        write(tmp_path / name, params, of)
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ConfigError, match=f"{name} exists; choose another name, or remove it."):
            write(tmp_path / name, drawn(of, seed=1), of)
        assert (tmp_path / name).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.safetensors"]
