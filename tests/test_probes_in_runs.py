"""Laws of probes within whole runs: they change nothing, record what they name, and agree with the records."""

import numpy as np
import pytest
from _digests import digests

import seqdyn
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.measure import jacobians, probes
from seqdyn.runs import sweep

X64 = False
pytestmark = pytest.mark.slow  # an LSTM under every probe
STEPS = 8


def observed(probes, specs):
    """Small networks with a neighbour that diverges between the first look and the second."""
    specs = tuple(Spec(cell=c, steps=STEPS, batch=3, hidden=(5,), holdout=6) for c in specs)
    points = grid(seeds=1, lr=[1e-2, 1e30])
    return Experiment("tiny", specs, points, 4, chunk=2, probe_every=2, tile=2, probes=probes, diagnostic=4, modes=10)


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """An LSTM under every probe."""
    e = observed(tuple(probes.PROBES), ("lstm",))
    return seqdyn.run(e, tmp_path_factory.mktemp("probed") / "out", verify=False)


def test_probes_change_no_bit_of_a_run_nor_the_program_that_trains_it(probed, tmp_path):
    e = observed((), ("lstm",))
    programs = sweep.programs(e.specs[0], 1)[:3]
    bare = digests(seqdyn.run(e, tmp_path / "bare", verify=False))
    assert [program._cache_size() for program in programs] == [1, 1, 1]
    records, parameters = digests(probed)
    recorded = {name for probe in probes.PROBES.values() for name in probe.names}
    assert recorded <= set(records)
    assert bare == ({name: v for name, v in records.items() if name not in recorded}, parameters)


def test_every_probe_records_what_it_names_and_nothing_of_a_run_that_diverged(probed):
    ds = seqdyn.load(probed).load()
    for probe in probes.PROBES.values():
        for name in probe.names:
            assert ds[name].dims[:2] == ("run", "probe") and ds[name].attrs["long_name"], name
            assert np.isfinite(ds[name].isel(run=0)).any(), name
            assert np.isnan(ds[name].isel(run=1, probe=-1)).all(), name
    np.testing.assert_array_equal(ds["window"], jacobians.windows(STEPS))
    assert ds.sizes["unit"] == 5 and ds.sizes["mode"] == 10


def test_gates_that_a_cell_does_not_have_are_nan_at_their_place(tmp_path):
    ds = seqdyn.load(seqdyn.run(observed(("units",), ("rnn", "lstm")), tmp_path / "out", verify=False)).load()
    assert ds["gate"].values.tolist() == ["h", "i", "f", "o", "g"]
    there = np.isfinite(ds["gate_mean"].isel(probe=0, layer=0, time=-1)).values
    np.testing.assert_array_equal(there[[0, 2]], [[1, 0, 0, 0, 0], [0, 1, 1, 1, 1]])
    assert (ds["gate_mean"].sel(gate="f", run=2).isel(probe=0) > 0.6).all()  # a forget bias of 1


def test_probes_agree_with_each_other_and_with_the_records_of_updates(probed):
    ds = seqdyn.load(probed).load().isel(run=0)
    one = ds["window_log_singular"].sel(window=1).isel(layer=0)
    assert (10 ** one.isel(mode=0) <= ds["step_norm"].isel(time=-1, layer=0) * 1.05).all()
    assert (ds["largest_singular_value"] >= ds["spectral_radius"] * (1 - 1e-6)).all()
    begun = ds.isel(probe=slice(0, 2))  # a look stands before the update of the same number
    grads, made = begun["group_gradient_ratio"] * begun["group_weight_norm"], ds["group_grad_norm"].isel(step=[0, 2])
    weights = list(ds["group"].values).index("layer0/u")
    np.testing.assert_allclose(grads[:, weights], made[:, weights], rtol=1e-4)
    moved, made = begun["group_update_ratio"] * begun["group_weight_norm"], ds["group_update_norm"].isel(step=[0, 2])
    np.testing.assert_allclose(moved[:, weights], made[:, weights], rtol=1e-4)
    counted = ds["adjoint_histogram"].sum("decade") / (4 * STEPS) + ds["adjoint_zero"]
    np.testing.assert_allclose(counted, 1, rtol=1e-6)
