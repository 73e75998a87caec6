"""What a `Spec` says: its fields, and the words that they take. Whether they fit each other is said above, by those who
heed them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """Of a 'labelled' sequence; 0: its label is a number."""
    targets: int = 1
    """Numbers (`classes` 0) or bits (`classes` 2) that a 'labelled' sequence has as its label, ys [n, targets]."""
    pad: Pad = "before"
    """On which side of a data set's sequences the padding lies."""
    mask: bool = True
    """Is padding left out, as if the sequence were shorter? False: it is read like anything else."""
    vocabulary: int = 0
    """Ids of a data set's sequences; 0 where they are numbers."""
    embedding: int = 0
    """Width of the trained embedding of ids; 0 gives a cell their one-hot vectors, `vocabulary` wide."""
    pretrained: bool = False
    """Does the embedding begin with word vectors, `data["vectors"]` [vocabulary, embedding]? See `Numbers.thaw`."""
    cell: CellName = "rnn"
    activation: Activation = "tanh"
    """φ of an rnn and of dense layers; LSTM and GRU have theirs."""
    hidden: tuple[int, ...] = (32,)
    """Width of each level, bottom first; those of `layers`, if there are any."""
    bidirectional: bool = False
    """Two layers a level, the second reading backwards: layers 2i and 2i + 1 of the records are level i."""
    w_init: InitName = "glorot_uniform"
    """Input weights, at `Numbers.input_gain`."""
    u_init: InitName = "orthogonal"
    """Recurrent weights, at `Numbers.gain`."""
    chrono: bool = False
    """Gate biases from `Numbers.longest` (LSTM, GRU) instead of `Numbers.forget_bias`."""
    normalise: Normalise = "none"
    """Of the pre-activations: see `nets.normalised`. The batch's kinds take whole sequences only."""
    readout_init: InitName = "glorot_uniform"
    """Readout weights, at `Numbers.readout_gain`."""
    readout: Readout = "last"
    """What the prediction reads of the top level's outputs: the last, or the mean or sum over the steps that are not
    padding. With 'every', in tasks that ask at every step, each step has its own prediction."""
    dropout: Dropout = "none"
    """What `Numbers.dropout` drops: words, inputs, outputs, or something inside the recurrence; see `learn.dropout`."""
    penalties: tuple[PenaltyName | Part, ...] | Part = ()
    """What is added to the loss: words, weighted by the hyperparameters of these names (see `penalties`), and parts
    with a weight of their own (see `terms`)."""
    optimizer: Optimizer | Part | tuple[Part, ...] = "adam"
    """From the gradient, clipped, to what is added to the parameters; of several parts one after the other: see
    `optim`."""
    schedule: Schedule | Part = "constant"
    """Of `Numbers.lr`, which an optimizer that is a part does not heed."""
    clip: Clip | Part = "norm"
    """What `Numbers.clip` bounds: the gradient's global norm, its entries, or each example's adjoint at each step. Then
    the records of clipping are of adjoints alone. A part acts on the gradient before the optimizer; the gradient of a
    frozen embedding is 0 there."""
    truncate: bool = False
    """Backpropagate through windows of `Numbers.window` steps only."""
    segment: int = 0
    """Steps of a segment, a divisor of `steps`; 0: no segments. For long sequences, of which not every step has room.
    The carry is kept once a segment, and the backward pass makes the segment's steps again. About √T takes the least
    memory. See `nets.segments`."""
    name: str = ""
    """What tables and figures call it; '' is the cell's name, and the fields that tell it from others of an
    experiment."""
    floss: int = 0
    """Lyapunov exponents, the largest, that are pulled towards 0 before the first update: see `measure.flossing`."""
    floss_steps: int = 500
    """Steps of that."""
    evaluate_train: bool = False
    """Is a data set's training split evaluated at every look, too, as the held-out ones are: `train_loss`?"""
    stop: Stop = "none"
    """Early stopping on this metric of the validation split, at every look: see `stopping`."""
    penalised: tuple[PenalisedGroup, ...] = ("input", "recurrent", "readout")
    """Which weight matrices are regularized by l1, l1_proximal, l2, l0 and the decay of 'adamw'; biases never are."""
    monte_carlo: int = 0
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
    layers: tuple[Part, ...] = ()
    """Cells, one a level, bottom first, instead of `cell` and what words say of it: the library's (`seqdyn.LSTM(32)`),
    with which all other words keep their meaning, and one's own, mixed as you like."""
    network: Part = None
    """A network that is no stack, instead of all that words say of one: see `learn.network`."""
    loss: Part = None
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


def words(name: str) -> tuple[str, ...]:
    """Those that a field takes."""
    hint = get_type_hints(Fields)[name]
    return get_args(hint if get_origin(hint) is Literal else get_args(hint)[0])
