"""The words that a `Spec` or an `Experiment` may use: adding one here is what makes it known."""

from typing import Literal

TaskName = Literal[
    "adding",
    "multiplication",
    "temporal_order",
    "temporal_order_3",
    "random_permutation",
    "delayed_xor",
    "parity",
    "copy",
    "memorization",
    "labelled",
    "next_step",
    "stream",
]
CellName = Literal["rnn", "lstm", "gru", "gru_reset_before", "dense", "dense_per_position"]
Activation = Literal[
    "tanh", "sigmoid", "relu", "leaky_relu", "elu", "gelu", "softplus", "softsign", "hard_tanh", "identity"
]
InitName = Literal["glorot_uniform", "glorot_normal", "orthogonal", "gaussian", "uniform", "identity", "sparse"]
Optimizer = Literal["sgd", "momentum", "rmsprop", "adam", "adamw"]
Schedule = Literal["constant", "cosine", "exponential", "inverse"]
Clip = Literal["norm", "value", "adjoint"]
Readout = Literal["last", "mean", "sum", "every"]
Normalise = Literal["none", "layer", "batch_drive", "batch"]
PenaltyName = Literal["l1", "l2", "activity", "orthogonality", "omega", "l1_proximal", "l0"]
PenalisedGroup = Literal["input", "recurrent", "readout", "embedding"]
Dropout = Literal[
    "none", "words", "inputs", "outputs", "recurrent_step", "recurrent", "variational", "candidate", "zoneout"
]
AugmentName = Literal[
    "time_warp",
    "jitter",
    "scaling",
    "window",
    "rotation",
    "flip",
    "flip_vertical",
    "zoom",
    "crop",
    "translation",
    "brightness",
    "contrast",
    "noise",
    "colour",
    "colour_jitter",
    "feature_subset",
    "perturbation",
    "delete",
    "swap",
    "insert",
    "insert_random",
    "neighbours",
    "bank",
]
Kind = Literal["series", "image", "table"]
Dtype = Literal["float32", "bfloat16", "float64"]
ProbeName = Literal["weights", "units", "jacobians", "lyapunov", "curvature", "updates"]
Split = Literal["holdout", "train"]
Stop = Literal["none", "loss", "accuracy"]
