"""Laws of files of weights: every bit comes back, whatever the network; no other convention is taken for ours."""

import subprocess
import sys

import numpy as np
import pytest
from _own import SPEC
from _weights import drawn, same, spec
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from seqdyn import ConfigError, Numbers, io

ZONEOUT = spec("lstm", dtype="float32", dropout="zoneout", numbers=Numbers(dropout=0.25))
NETWORKS = [spec("gru", 2, True), ZONEOUT, spec("rnn", normalise="layer")]


@pytest.mark.parametrize("of", NETWORKS, ids=lambda of: of.label)
def test_a_file_gives_back_every_bit_and_says_what_it_holds(of, tmp_path):
    params = drawn(of, odd=True)
    io.save(tmp_path / "net.safetensors", params, of, step=np.int64(7), run=np.int32(3))
    found = io.load(tmp_path / "net.safetensors")
    assert (found.spec, found.step, found.run) == (of, 7, 3)
    same(found.params, params)
    arrays = load_file(tmp_path / "net.safetensors")  # as any other program reads it
    assert {"layer0/w", "layer0/u", "layer0/b", "readout/w", "readout/b"} <= arrays.keys()
    np.testing.assert_array_equal(arrays["layer0/w"], params.layers[0].w)


def test_a_file_of_parts_and_networks_of_ones_own_keeps_scalars_and_all_types(tmp_path):
    params = drawn(SPEC)
    io.save(tmp_path / "own.safetensors", params, SPEC)
    found = io.load(tmp_path / "own.safetensors")
    same(found.params, params)
    assert found.spec == SPEC


def changed(path, **said):
    arrays = load_file(path)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    path.unlink()
    save_file(arrays, path, {name: text for name, text in (metadata | said).items() if text})
    return path


FILES = {
    "net.safetensors has its gates in the order 'ifgo'; lstm has 'ifog'.": lambda p: io.load(changed(p, gates="ifgo")),
    "has the format None, not 'seqdyn 1'; give load its spec": lambda p: io.load(changed(p, format="")),
    "net.safetensors has no layer0/bn, which gru has": lambda p: io.load(changed(p, gates=""), spec("gru")),
    "net.safetensors has layer0/w [2, 12]; lstm has [5, 12]": lambda p: io.load(p, spec(features=5)),
    "cannot be read": lambda p: (p.write_bytes(p.read_bytes()[:-1]), io.load(p)),
    "is not there; it must be a safetensors file": lambda p: io.load(p.with_name("other")),
    "run is <object": lambda p: io.save(p.with_name("other"), drawn(spec()), spec(), run=object()),
    "params has layer0/bn, [3], which lstm has not": lambda p: io.save(p.with_name("o"), drawn(spec("gru")), spec()),
    "metadata whose spec is damaged": lambda p: io.load(changed(p, spec="{")),
    "metadata whose spec is damaged (KeyError": lambda p: io.load(changed(p, spec="")),
    "metadata whose step is damaged ('-3')": lambda p: io.load(changed(p, step="-3")),
    "metadata whose parents is damaged": lambda p: io.load(changed(p, parents="[3]")),
    "task is 3; it must be one of": lambda p: io.load(changed(p, spec='{"task": 3}')),
    "vocabulary is -1; it must be": lambda p: io.load(p, spec(vocabulary=-1)),
    "metadata whose step is damaged": lambda p: io.load(changed(p, step="x")),
    "step is 'a'; it must be a whole number": lambda p: io.save(p.with_name("o"), drawn(spec()), spec(), step="a"),
    "cannot be written (File exists)": lambda p: io.save(p / "o", drawn(spec()), spec()),
    "spec is 3; it must be a Spec": lambda p: io.load(p, 3),
}


@pytest.mark.parametrize("sentence", FILES)
def test_a_file_of_another_convention_is_one_sentence(sentence, tmp_path):
    path = io.save(tmp_path / "net.safetensors", drawn(spec()), spec())
    with pytest.raises(ConfigError) as said:
        FILES[sentence](path)
    assert sentence in str(said.value) and "\n" not in str(said.value)
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.slow
def test_no_framework_is_imported_before_it_is_used():
    names = ("torch", "keras", "flax", "onnx", "tensorflow")
    code = f"import seqdyn, sys; print([name for name in {names} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
