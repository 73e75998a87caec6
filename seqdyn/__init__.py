"""Training dynamics of recurrent networks: gradient norms through time, for whole grids of runs, at every step.

spec = seqdyn.Spec(task="adding", cell="lstm")          # or parts of one's own: see `learn.fitted`
runs = seqdyn.grid(spec, seeds=3, gain=[0.5, 1.0])
out = seqdyn.run(seqdyn.Experiment("mine", runs, updates=2000), "runs/mine")
seqdyn.load(out).adjoint_norm            # run, step, layer, time
"""

from seqdyn import io as io
from seqdyn import watch as watch
from seqdyn.backend import compiled as compiled
from seqdyn.data.sampled import Drawn as Task
from seqdyn.data.sampled import task as task
from seqdyn.documented import fields_in_help
from seqdyn.learn.config import Experiment as Experiment
from seqdyn.learn.config import Hypers as Hypers
from seqdyn.learn.config import Runs as Runs
from seqdyn.learn.config import grid as grid
from seqdyn.learn.context import Context as Context
from seqdyn.learn.context import Variable as Variable
from seqdyn.learn.looks import Look as Look
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
from seqdyn.learn.rules import Rule as Rule
from seqdyn.learn.spec import Spec as Spec
from seqdyn.learn.terms import LayerPass as LayerPass
from seqdyn.learn.terms import Pass as Pass
from seqdyn.nets.cells import Cell as Cell
from seqdyn.nets.diagonal import parallel as parallel
from seqdyn.nets.from_step import cell as cell
from seqdyn.nets.indrnn import IndRNN as IndRNN
from seqdyn.nets.lru import LRU as LRU
from seqdyn.nets.minimal import MinGRU as MinGRU
from seqdyn.nets.minimal import MinLSTM as MinLSTM
from seqdyn.nets.slstm import SLSTM as SLSTM
from seqdyn.parts import Number as Number
from seqdyn.parts import number as number
from seqdyn.parts import part as part
from seqdyn.runs.probe import probe as probe
from seqdyn.runs.replay import replay as replay
from seqdyn.runs.run import restore as restore
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
    "LRU",
    "SGD",
    "SLSTM",
    "Adam",
    "AdamW",
    "Cell",
    "ClipByNorm",
    "ClipByValue",
    "ConfigError",
    "Context",
    "Cosine",
    "Experiment",
    "Exponential",
    "Hypers",
    "IndRNN",
    "LayerPass",
    "Look",
    "Inverse",
    "MinGRU",
    "MinLSTM",
    "Momentum",
    "Number",
    "Pass",
    "RMSProp",
    "Rule",
    "Runs",
    "Spec",
    "Task",
    "Variable",
    "Warmup",
    "cell",
    "compiled",
    "explained",
    "find",
    "generate",
    "grid",
    "io",
    "load",
    "number",
    "parallel",
    "part",
    "predict",
    "probe",
    "replay",
    "restore",
    "run",
    "task",
    "trained",
    "watch",
    "why",
]

for _name in __all__:
    if isinstance(globals()[_name], type):
        fields_in_help(globals()[_name])
