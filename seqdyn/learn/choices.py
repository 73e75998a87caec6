"""The words that a `Spec` or an `Experiment` may use: adding one here is what makes it known."""

from typing import Literal

TaskName = Literal["adding", "delayed_xor", "labelled", "next_step", "stream"]
CellName = Literal["rnn", "lstm", "gru", "gru_reset_before", "dense", "dense_per_position"]
Activation = Literal[
    "tanh", "sigmoid", "relu", "leaky_relu", "elu", "gelu", "softplus", "softsign", "hard_tanh", "identity"
]
InitName = Literal["glorot_uniform", "glorot_normal", "orthogonal", "gaussian", "uniform", "identity", "sparse"]
Optimizer = Literal["sgd", "momentum", "rmsprop", "adam", "adamw"]
Schedule = Literal["constant", "cosine", "exponential"]
Clip = Literal["norm", "value", "adjoint"]
Readout = Literal["last", "mean", "sum", "every"]
Dropout = Literal["none", "inputs"]
Pad = Literal["before", "after"]
ProbeName = Literal["weights", "units", "jacobians", "lyapunov", "curvature", "updates"]
Split = Literal["holdout", "train"]
