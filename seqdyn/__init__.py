"""Training dynamics of recurrent networks: gradient norms through time, for whole grids of runs, at every step.

experiment = seqdyn.Experiment("mine", (seqdyn.Spec(cell="lstm"),), seqdyn.grid(seeds=3, gain=[0.5, 1.0]), …)
out = seqdyn.run.run(experiment, "runs/mine")
seqdyn.load(out).adjoint_norm            # run, step, layer, time
"""

from seqdyn.backend import compiled as compiled
from seqdyn.learn.config import Experiment as Experiment
from seqdyn.learn.config import Hypers as Hypers
from seqdyn.learn.config import Spec as Spec
from seqdyn.learn.config import grid as grid
from seqdyn.runs import run as run
from seqdyn.runs.records import load as load
from seqdyn.runs.run import restore as restore
from seqdyn.types import ConfigError as ConfigError
