"""A run directory's bits."""

import numpy as np

import seqdyn
from seqdyn.runs.checkpoint import digest


def digests(out):
    """Every record and every run's parameters, as bytes."""
    ds = seqdyn.load(out).load()
    records = {str(name): np.asarray(v).tobytes() for name, v in ds.data_vars.items()}
    return records, [digest(seqdyn.restore(out, r)) for r in range(ds.sizes["run"])]
