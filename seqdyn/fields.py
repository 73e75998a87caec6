"""What a `Spec` says: its fields, and the words that they take. Whether they fit each other is said above, by those who
heed them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from seqdyn import parts
from seqdyn.nets.activations import Activation
from seqdyn.nets.inits import InitName
from seqdyn.numbers import Numbers
from seqdyn.parts import Part
from seqdyn.types import Pad

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
Stop = Literal["none", "loss", "accuracy"]


def _word(default: Any, replaced_by: str) -> Any:
    """A part in one of these fields of a spec takes its place."""
    return field(default=default, metadata={"replaced_by": replaced_by.split()})


@dataclass(frozen=True)
class Fields:
    """The fields of a `Spec`, which is one whose parts and words have been held against each other."""

    task: TaskName | Part = "adding"
    steps: int = 100
    """T, time steps of a sequence; those that a task of one's own draws."""
    batch: int = 32
    """Sequences per update."""
    holdout: int = 1000
    """Sequences of evaluation: fresh test sequences of a synthetic task (rounded up to whole batches)."""
    training_set: int = 0
    """Sequences of a synthetic task's training set, a multiple of `batch`, taken in order again and again (n = batch:
    every update sees all of it); 0 draws fresh sequences at every update."""
    shortest: int = 0
    """Each sequence of a synthetic task has a length of its own, uniform from this to `steps`; 0: all have `steps`."""
    features: int = 0
    """Numbers a step of a data set's sequences; 0 where they are ids."""
    classes: int = 2
    """Of a 'labelled' sequence, with the readout 'every' of each of its steps; 0: its label is a number."""
    targets: int = 1
    """Numbers (`classes` 0) or bits (`classes` 2) that a 'labelled' sequence has as its label, ys [n, targets];
    each step with the readout 'every'."""
    pad: Pad = "before"
    """On which side of a data set's sequences the padding lies."""
    mask: bool = True
    """Is padding left out, as if the sequence were shorter? False: it is read like anything else."""
    vocabulary: int = 0
    """Kinds of ids in the sequences of a data set or of a task of one's own; 0 where they are numbers."""
    embedding: int = _word(0, "network")
    """Width of the trained embedding of ids; 0 gives a cell their one-hot vectors, `vocabulary` wide."""
    pretrained: bool = _word(False, "network")
    """Does the embedding begin with word vectors, `data["vectors"]` [vocabulary, embedding]? See `Numbers.thaw`."""
    cell: CellName = _word("rnn", "layers network")
    activation: Activation = _word("tanh", "layers network")
    """φ of an rnn and of dense layers; LSTM and GRU have theirs."""
    hidden: tuple[int, ...] = _word((32,), "network")
    """Width of each level, bottom first; those of `layers`, if there are any."""
    bidirectional: bool = _word(False, "network")
    """Two layers a level, the second reading backwards: layers 2i and 2i + 1 of the records are level i."""
    w_init: InitName = _word("glorot_uniform", "layers network")
    """Input weights, at `Numbers.input_gain`."""
    u_init: InitName = _word("orthogonal", "layers network")
    """Recurrent weights, at `Numbers.gain`."""
    chrono: bool = _word(False, "layers network")
    """Gate biases from `Numbers.longest` (LSTM, GRU) instead of `Numbers.forget_bias`."""
    normalise: Normalise = _word("none", "network")
    """Of the pre-activations: see `nets.normalised`. The batch's kinds take whole sequences only."""
    readout_init: InitName = _word("glorot_uniform", "network")
    """Readout weights, at `Numbers.readout_gain`."""
    readout: Readout = _word("last", "network")
    """What the prediction reads of the top level's outputs: the last, or the mean or sum over the steps that are not
    padding. With 'every', in tasks that ask at every step and 'labelled' ones with a label of each step, each step has
    its own prediction."""
    dropout: Dropout = _word("none", "network")
    """What `Numbers.dropout` drops: words, inputs, outputs, or something inside the recurrence; see `learn.dropout`."""
    penalties: tuple[PenaltyName | Part, ...] | Part = ()
    """What is added to the loss: words, weighted by the hyperparameters of these names (see `penalties`), and parts
    with a weight of their own (see `terms`)."""
    optimizer: Optimizer | Part | tuple[Part, ...] = "adam"
    """From the gradient, clipped, to what is added to the parameters; of several parts one after the other: see
    `optim`."""
    schedule: Schedule | Part = _word("constant", "optimizer")
    """Of `Numbers.lr`, which an optimizer that is a part does not heed."""
    clip: Clip | Part = "norm"
    """What `Numbers.clip` bounds: the gradient's global norm, its entries, or each example's adjoint at each step. Then
    the records of clipping are of adjoints alone. A part acts on the gradient before the optimizer; the gradient of a
    frozen embedding is 0 there."""
    truncate: bool = _word(False, "network")
    """Backpropagate through windows of `Numbers.window` steps only."""
    segment: int = _word(0, "network")
    """Steps of a segment, a divisor of `steps`; 0: no segments. For long sequences, of which not every step has room.
    The carry is kept once a segment, and the backward pass makes the segment's steps again. About √T takes the least
    memory. See `nets.segments`."""
    name: str = ""
    """What tables and figures call it; '' is the cell's name, and the fields that tell it from others of an
    experiment."""
    floss: int = _word(0, "network")
    """Lyapunov exponents, the largest, that are pulled towards 0 before the first update: see `measure.flossing`."""
    floss_steps: int = _word(500, "network")
    """Steps of that."""
    evaluate_train: bool = False
    """Is a data set's training split evaluated at every look, too, as the held-out ones are: `train_loss`?"""
    stop: Stop = "none"
    """Early stopping on this metric of the validation split, at every look: see `stopping`."""
    penalised: tuple[PenalisedGroup, ...] = _word(("input", "recurrent", "readout"), "network")
    """Which weight matrices are regularized by l1, l1_proximal, l2, l0 and the decay of 'adamw'; biases never are."""
    monte_carlo: int = _word(0, "task network")
    """How many networks with dropout are averaged on held-out splits; their mean prediction gives −log mean p and the
    accuracy (Gal & Ghahramani 2016). Keys are of (seed, update). 0 evaluates one network without dropout."""
    augment: tuple[AugmentName, ...] = ()
    """How the sequences of every training batch are changed, one after the other, by `Numbers.strength`: see
    `data.augment`."""
    kind: Kind = "series"
    """What a data set's numbers are, which decides what augmentations fit; ids are text."""
    dtype: Dtype = "float32"
    """What the network computes in: bfloat16 keeps parameters, optimiser and loss in float32; float64 has all in
    float64 and needs JAX_ENABLE_X64=1. See `learn.precision`."""
    layers: tuple[Part, ...] = _word((), "network")
    """Cells, one a level, bottom first, instead of `cell` and what words say of it: the library's (`seqdyn.LSTM(32)`),
    with which all other words keep their meaning, and one's own, mixed as you like."""
    network: Part = None
    """A network that is no stack, instead of all that words say of one: see `learn.network`."""
    loss: Part = _word(None, "task network")
    """What a prediction costs, in place of the task's own loss: a function (predictions, ys) -> [*s] of a module, or a
    part with `build()`, which returns one, and if it has a meaning `correct(predictions, ys)` and `mean(predictions)`:
    see `data.losses`."""
    records: tuple[Part, ...] = ()
    """What else is recorded of every update."""
    numbers: Numbers = Numbers()  # noqa: RUF009, frozen
    """Of what words say: learning rate, gains, seed, …; axes of `grid`."""
    decided: tuple[tuple[str, Any], ...] = ()
    """(field, value) of what the parts decide; made here, and anew by `dataclasses.replace`."""

    @property
    def label(self) -> str:
        """`name`, or 'rnn tanh', 'lstm', 'gru', or what the classes of `layers` or `network` are called."""
        own = [parts.describe(part) for part in (*self.layers, *filter(None, [self.network]))]
        return label(self.name, self.cell, self.activation, own)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each recurrent layer, in the order of the records."""
        return tuple(h for h in self.hidden for _ in range(2 if self.bidirectional else 1))


def label(name: str, cell: str, activation: str, own: Sequence[Mapping[str, Any]] = ()) -> str:
    """`Spec.label`; `own` are the layers' parts as a manifest has them; of one around a cell 'Zoneout(LSTM)'."""

    def called(part: Mapping[str, Any]) -> str:
        inside = part.get("cell")
        name = part["part"].rpartition(":")[2]
        return f"{name}({called(inside)})" if isinstance(inside, Mapping) and "part" in inside else name

    if name or own:
        return name or " ".join(dict.fromkeys(map(called, own)))
    return f"rnn {activation}" if cell == "rnn" else cell.replace("_", " ")


def replaced_by() -> dict[str, list[str]]:
    """Field -> those in which a part takes its place."""
    return {f.name: f.metadata["replaced_by"] for f in fields(Fields) if "replaced_by" in f.metadata}


HINTS = get_type_hints(Fields)
"""Field -> its type."""
NONE_AT_0 = (
    *("training_set", "shortest", "features", "classes", "vocabulary", "embedding", "segment", "floss", "monte_carlo"),
)
"""Whole numbers that say at 0 that there is none; others are at least 1."""


def words(name: str) -> tuple[str, ...]:
    """Those of which a field takes one; () for another kind of field."""
    hint = HINTS[name]
    options = () if get_origin(hint) is tuple else (hint, *get_args(hint))
    return get_args(next((one for one in options if get_origin(one) is Literal), None))
