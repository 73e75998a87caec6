"""Training dynamics of recurrent networks: gradient norms through time, for whole grids of runs, at every step.

experiment = seqdyn.Experiment("mine", (seqdyn.Spec(cell="lstm"),), seqdyn.grid(seeds=3, gain=[0.5, 1.0]), …)
out = seqdyn.run.run(experiment, "runs/mine")
seqdyn.load(out).adjoint_norm            # run, step, layer, time
"""

from seqdyn import run as run
from seqdyn.config import Experiment as Experiment
from seqdyn.config import Hypers as Hypers
from seqdyn.config import Spec as Spec
from seqdyn.config import grid as grid
from seqdyn.records import load as load
from seqdyn.run import restore as restore
from seqdyn.types import ConfigError as ConfigError
