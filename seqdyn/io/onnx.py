"""Networks for other runtimes: ONNX's RNN, LSTM and GRU, written node by node.

Gates lie i o f c and z r h there. What our `gru` is has `linear_before_reset` 1, the reset before the product has 0.
https://onnx.ai/onnx/operators: RNN, LSTM, GRU.
"""

from pathlib import Path
from typing import Any

import numpy as np

from seqdyn.data.extras import needed
from seqdyn.files import in_one_step
from seqdyn.io.stacks import check_lengths, check_whole, outgoing, pair, stack, written
from seqdyn.nets.conventions import ONNX
from seqdyn.nets.conventions import to_onnx as theirs
from seqdyn.types import ConfigError, as_path

FOR = "ONNX"
OPSET, IR = 17, 8
"""Of 2022: what every runtime since then reads."""
_OPERATOR = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "gru_reset_before": "GRU"}
_ACTIVATION = {"tanh": "Tanh", "relu": "Relu"}


def to_onnx(path: str | Path, params: Any, spec: Any = None, *, lengths: bool = False) -> Path:
    """Writes the network and returns the path: the input `xs`, [batch, time, features] or ids [batch, time] (int64),
    and the output `predictions`, as the readout gives them, [batch, outputs] or [batch, time, outputs].

    Batch and time may be of any size. With `lengths` there is a second input, `sequence_lens` [batch] (int32): how many
    steps of each sequence count, from 1 to time, the last ones where `Spec.pad` is 'before', else the first
    (onnxruntime refuses more than time; a mean over 0 steps is NaN); without, padding is read like anything else. A
    network of float64 is written in float64, for which onnxruntime has no RNN. Raises ConfigError for what ONNX has no
    counterpart of (see `stacks.stack`), for a model without a readout or an embedding that its spec has, for lengths
    where `Spec.mask` is False, and if there is a file already.
    """
    params, spec = pair(params, spec)
    of, model = stack(spec, FOR, ONNX, out=True), outgoing(params, spec)
    check_lengths(of, lengths)
    check_whole(of, model, "a file of ONNX")
    path = as_path("path", path, "that of a new file")
    if path.exists():
        raise ConfigError(f"{path} exists; choose another name, or remove it.")
    onnx = needed("onnx", "seqdyn.io.to_onnx")
    make, nodes, held = onnx.helper, [], []

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(make.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def kept(name: str, value: Any) -> str:
        held.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def turned_round(steps: str, output: str) -> str:
        """All of the time axis."""
        names = ("last", "before_first", "time_axis", "backwards")
        values = (-1, np.iinfo(np.int64).min, 0, -1)
        given = [kept(f"{output}/{name}", np.asarray([value])) for name, value in zip(names, values, strict=True)]
        return node("Slice", [steps, *given], output)

    def each_turned_round(steps: str, output: str) -> str:
        """The first steps of each sequence, as many as count."""
        return node("ReverseSequence", [steps, "lengths"], output, batch_axis=1, time_axis=0)

    real = make.np_dtype_to_tensor_dtype(np.dtype(of.real))
    xs = node("Transpose", ["xs"], "xs_by_time", perm=[1, 0] if of.vocabulary else [1, 0, 2])
    before = lengths and of.pad == "before"  # ONNX has padding after sequences
    if lengths:
        node("Cast", ["sequence_lens"], "lengths", to=onnx.TensorProto.INT64)
    if before:
        xs = each_turned_round(turned_round(xs, "xs_backwards"), "xs_at_start")
    if of.vocabulary:
        rows = model.embedding if of.embedding else np.eye(of.vocabulary, dtype=of.real)
        xs = node("Gather", [kept("embedding" if of.embedding else "one_hot", rows), xs], "vectors")
    both = "bidirectional" if of.directions == 2 else "forward"
    flat, last = kept("flat", np.asarray([0, 0, -1])), ""
    for level, width in enumerate(of.hidden):
        layers = model.layers[of.directions * level : of.directions * (level + 1)]
        parts = [np.stack(part) for part in zip(*(theirs(of.kind, layer) for layer in layers), strict=True)]
        names = [kept(f"level{level}/{name}", part) for name, part in zip("WRB", parts, strict=True)]
        more: dict[str, Any] = {"hidden_size": width, "direction": both}
        if of.kind == "rnn":
            more["activations"] = [_ACTIVATION[of.activation]] * of.directions
        if "gru" in of.kind:
            more["linear_before_reset"] = int(of.kind == "gru")
        hs, last = f"level{level}/hs", f"level{level}/last"  # [time, direction, batch, h], [direction, batch, h]
        names += ["sequence_lens"] if lengths else []
        nodes.append(make.make_node(_OPERATOR[of.kind], [xs, *names], [hs, last], name=f"level{level}", **more))
        turned = node("Transpose", [hs], f"level{level}/turned", perm=[0, 2, 1, 3])
        xs = node("Reshape", [turned, flat], f"level{level}/outputs")
    match of.readout:
        case "every":
            if before:
                xs = turned_round(each_turned_round(xs, "outputs_backwards"), "outputs_in_place")
            top = node("Transpose", [xs], "top", perm=[1, 0, 2])
        case "last":
            turned = node("Transpose", [last], "last", perm=[1, 0, 2])
            top = node("Reshape", [turned, kept("rows", np.asarray([0, -1]))], "top")
        case "mean" | "sum" if lengths:
            steps = node("Gather", [node("Shape", [xs], "shape"), kept("first", np.asarray(0))], "steps")
            ends = [kept("zero", np.asarray(0)), steps, kept("one", np.asarray(1))]
            column = node("Unsqueeze", [node("Range", ends, "t"), kept("columns", np.asarray([1]))], "t_by_time")
            mask = node(
                "Unsqueeze", [node("Less", [column, "lengths"], "mask"), kept("numbers", np.asarray([2]))], "on"
            )
            held_at = node("Where", [mask, xs, kept("nothing", np.zeros((), of.real))], "outputs_that_count")
            top = node("ReduceSum", [held_at, kept("time", np.asarray([0]))], "total", keepdims=0)
            if of.readout == "mean":
                counts = node("Cast", ["lengths"], "counts", to=real)
                top = node("Div", [top, node("Unsqueeze", [counts, "columns"], "count_of_each")], "top")
        case "mean":
            top = node("ReduceMean", [xs], "top", axes=[0], keepdims=0)
        case _:
            top = node("ReduceSum", [xs, kept("time", np.asarray([0]))], "top", keepdims=0)
    product = node("MatMul", [top, kept("readout/w", model.readout.w)], "product")
    node("Add", [product, kept("readout/b", model.readout.b)], "predictions")
    shape = ["batch", "time"]
    given = make.make_tensor_value_info("xs", onnx.TensorProto.INT64, shape)
    if not of.vocabulary:
        given = make.make_tensor_value_info("xs", real, [*shape, of.inputs])
    found = make.make_tensor_value_info("predictions", real, [*shape[: 1 + (of.readout == "every")], of.outputs])
    inputs = [given]
    if lengths:
        inputs.append(make.make_tensor_value_info("sequence_lens", onnx.TensorProto.INT32, ["batch"]))
    graph = make.make_graph(nodes, "seqdyn", inputs, [found], held)
    opset = [make.make_opsetid("", OPSET)]
    made = make.make_model(graph, producer_name="seqdyn", opset_imports=opset, ir_version=IR)
    onnx.checker.check_model(made, full_check=True)
    with written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with in_one_step(path) as partial:
            partial.write_bytes(made.SerializeToString())
    return path
