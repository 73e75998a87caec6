"""Training dynamics of recurrent networks: gradient norms through time, for whole grids of runs, at every step.

spec = seqdyn.Spec(task="adding", cell="lstm")          # or parts of one's own: see `learn.fitted`
runs = seqdyn.grid(spec, seeds=3, gain=[0.5, 1.0])
out = seqdyn.run(seqdyn.Experiment("mine", runs, updates=2000), "runs/mine")
seqdyn.load(out).adjoint_norm            # run, step, layer, time
"""

from seqdyn import io as io
from seqdyn import mirrors as mirrors
from seqdyn import watch as watch
from seqdyn.backend import compiled as compiled
from seqdyn.data.sampled import Drawn as Task
from seqdyn.data.sampled import task as task
from seqdyn.data.synthetic import Adding as Adding
from seqdyn.data.synthetic import Copy as Copy
from seqdyn.data.synthetic import DelayedXOR as DelayedXOR
from seqdyn.data.synthetic import Memorization as Memorization
from seqdyn.data.synthetic import Multiplication as Multiplication
from seqdyn.data.synthetic import Parity as Parity
from seqdyn.data.synthetic import RandomPermutation as RandomPermutation
from seqdyn.data.synthetic import TemporalOrder as TemporalOrder
from seqdyn.documented import fields_in_help
from seqdyn.learn.config import Experiment as Experiment
from seqdyn.learn.config import grid as grid
from seqdyn.learn.context import Context as Context
from seqdyn.learn.context import Variable as Variable
from seqdyn.learn.optim import SGD as SGD
from seqdyn.learn.optim import Adam as Adam
from seqdyn.learn.optim import AdamW as AdamW
from seqdyn.learn.optim import ClipByNorm as ClipByNorm
from seqdyn.learn.optim import ClipByValue as ClipByValue
from seqdyn.learn.optim import Cosine as Cosine
from seqdyn.learn.optim import Exponential as Exponential
from seqdyn.learn.optim import Inverse as Inverse
from seqdyn.learn.optim import Momentum as Momentum
from seqdyn.learn.optim import RMSProp as RMSProp
from seqdyn.learn.optim import Warmup as Warmup
from seqdyn.learn.probe_config import Look as Look
from seqdyn.learn.rules import Rule as Rule
from seqdyn.learn.spec import Spec as Spec
from seqdyn.learn.terms import LayerPass as LayerPass
from seqdyn.learn.terms import Pass as Pass
from seqdyn.measure.lag_signal import LagSignal as LagSignal
from seqdyn.measure.newton import newton as newton
from seqdyn.nets.cells import Cell as Cell
from seqdyn.nets.diagonal import parallel as parallel
from seqdyn.nets.from_step import cell as cell
from seqdyn.nets.indrnn import IndRNN as IndRNN
from seqdyn.nets.inits import Gaussian as Gaussian
from seqdyn.nets.inits import GlorotNormal as GlorotNormal
from seqdyn.nets.inits import GlorotUniform as GlorotUniform
from seqdyn.nets.inits import Identity as Identity
from seqdyn.nets.inits import Orthogonal as Orthogonal
from seqdyn.nets.inits import Sparse as Sparse
from seqdyn.nets.inits import Uniform as Uniform
from seqdyn.nets.levels import GRU as GRU
from seqdyn.nets.levels import LSTM as LSTM
from seqdyn.nets.levels import RNN as RNN
from seqdyn.nets.levels import Dense as Dense
from seqdyn.nets.levels import DensePerPosition as DensePerPosition
from seqdyn.nets.lru import LRU as LRU
from seqdyn.nets.minimal import MinGRU as MinGRU
from seqdyn.nets.minimal import MinLSTM as MinLSTM
from seqdyn.nets.slstm import SLSTM as SLSTM
from seqdyn.nets.wrappers import BatchNorm as BatchNorm
from seqdyn.nets.wrappers import BatchNormDrive as BatchNormDrive
from seqdyn.nets.wrappers import CandidateDropout as CandidateDropout
from seqdyn.nets.wrappers import LayerNorm as LayerNorm
from seqdyn.nets.wrappers import RecurrentDropout as RecurrentDropout
from seqdyn.nets.wrappers import Zoneout as Zoneout
from seqdyn.numbers import Numbers as Numbers
from seqdyn.parts import Number as Number
from seqdyn.parts import number as number
from seqdyn.parts import part as part
from seqdyn.runs.extend import extend as extend
from seqdyn.runs.probe import probe as probe
from seqdyn.runs.replay import replay as replay
from seqdyn.runs.restore import restore as restore
from seqdyn.runs.run import run as run
from seqdyn.runs.several import find as find
from seqdyn.runs.several import load as load
from seqdyn.runs.use import explained as explained
from seqdyn.runs.use import generate as generate
from seqdyn.runs.use import predict as predict
from seqdyn.runs.use import trained as trained
from seqdyn.runs.why import why as why
from seqdyn.types import ConfigError as ConfigError

run.run = run  # type: ignore[attr-defined]  # what scripts of before called

__all__ = [
    "Numbers",
    "Adam",
    "AdamW",
    "Adding",
    "cell",
    "Cell",
    "ClipByNorm",
    "ClipByValue",
    "compiled",
    "ConfigError",
    "Context",
    "Copy",
    "Cosine",
    "DelayedXOR",
    "Dense",
    "DensePerPosition",
    "Experiment",
    "explained",
    "extend",
    "Exponential",
    "find",
    "Gaussian",
    "generate",
    "GlorotNormal",
    "GlorotUniform",
    "grid",
    "GRU",
    "Identity",
    "IndRNN",
    "Inverse",
    "io",
    "LagSignal",
    "LayerPass",
    "load",
    "Look",
    "LRU",
    "LSTM",
    "Memorization",
    "MinGRU",
    "MinLSTM",
    "mirrors",
    "Momentum",
    "Multiplication",
    "newton",
    "Number",
    "number",
    "Orthogonal",
    "parallel",
    "Parity",
    "part",
    "Pass",
    "predict",
    "probe",
    "RandomPermutation",
    "replay",
    "restore",
    "RMSProp",
    "RNN",
    "Rule",
    "run",
    "SGD",
    "SLSTM",
    "Sparse",
    "Spec",
    "Task",
    "task",
    "TemporalOrder",
    "trained",
    "Uniform",
    "Variable",
    "Warmup",
    "watch",
    "why",
]

for _name in __all__:
    if isinstance(globals()[_name], type):
        fields_in_help(globals()[_name])
