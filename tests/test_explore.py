"""Laws of `analysis.explore`: the page holds the records, whatever they are of, needs nothing else, and obeys in a
browser."""

import base64
import json
import math
import re
import zlib

import _chromium
import numpy as np
import pytest
from test_analysis import STEPS, UPDATES, write

from analysis import explore
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.records import load
from seqdyn.types import ConfigError

X64 = False
NASTY = "</script><b>\"'&{data}"


def experiment(name="flow", clip=(1.0, math.inf), **spec):
    same = dict(steps=STEPS, batch=4, hidden=(3,)) | spec
    specs = (Spec(**same), Spec(cell="lstm", **same))
    return Experiment(name, specs, grid(seeds=2, gain=[0.5, 1.5], clip=list(clip), lr=1e-3), UPDATES, 5, 10, 8)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return write(tmp_path_factory.mktemp("explore") / "run", experiment(), UPDATES)


@pytest.fixture(scope="module")
def file(out):
    return explore.write([out], out / explore.NAME)


def held(file):
    """What a page holds, read as the page reads it."""
    text = file.read_text()
    found = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    shape = len(found["layers"]), len(found["steps"]), len(found["lags"])
    for of in found["maps"].values():
        differences = unpacked(of["data"], "<u2").reshape(-1, *shape)
        codes = np.cumsum(differences, axis=-1, dtype=np.uint16).view(np.int16)
        norms = np.exp2(codes / 2 ** of["digits"])
        special = [codes == explore.MISSING, codes == explore.ZERO, codes == explore.INFINITE]
        of["norms"] = np.select(special, [np.nan, 0, np.inf], norms)
    for of in found["series"].values():
        of["values"] = unpacked(of["data"], "<f4").reshape(found["runs"], of["layers"], len(of["at"]))
    return found


def unpacked(text, kind):
    raw = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return raw.reshape(np.dtype(kind).itemsize, -1).T.copy().view(kind)[:, 0]


def assert_held(found, ds):
    """Maps to 1/128 in log₂, curves to a float16's mantissa."""
    assert found["maps"] and found["series"]["horizon"]["at"] == found["steps"]
    for name, of in found["maps"].items():
        norms = ds[name].where(ds["adjoint_count"] > 0).transpose("run", "layer", "step", "time").values[..., ::-1]
        norms = norms[of["runs"]][:, :, found["steps"]][..., found["lags"]]
        np.testing.assert_allclose(of["norms"], norms, rtol=2 ** (0.501 / 2 ** of["digits"]) - 1)
    for name, of in found["series"].items():
        if name in ds and ds[name].dims == ("run", "step"):
            np.testing.assert_allclose(of["values"][:, 0], ds[name].values[:, of["at"]], rtol=2**-11)


def test_the_page_holds_the_records(out, file):
    found, ds = held(file), load(out)
    assert found["steps"] == list(range(UPDATES)) and found["lags"] == list(range(STEPS))
    assert set(found["maps"]) == {"adjoint_norm", "adjoint_norm_c"}
    assert_held(found, ds)
    assert np.isinf(found["maps"]["adjoint_norm"]["norms"]).any()  # of the update before it diverged
    for of in found["coordinates"]:
        said = [of["values"][i] for i in of["of"]]
        assert said == [explore._short(v) for v in ds[of["name"]].values.tolist()]
    assert found["broke"] == [7 if run == 3 else -1 for run in range(16)]
    assert found["learned"] == [10] * 16


def test_the_horizon_is_that_of_all_lags(file):
    found = held(file)
    gains = next(of for of in found["coordinates"] if of["name"] == "gain")
    for run, row in enumerate(found["series"]["horizon"]["values"][:, 0]):
        assert set(row[:6]) == {7 if gains["values"][gains["of"][run]] == "0.5" else STEPS}


def test_the_same_records_are_the_same_bytes(out, file, tmp_path):
    assert explore.write([out], tmp_path / "again.html").read_bytes() == file.read_bytes()


def test_what_a_user_named_is_text_and_the_page_needs_nothing_else(out, tmp_path):
    nasty = write(tmp_path / "a<b>&'\"", experiment(), UPDATES)
    data = explore.payload([nasty]) | {"title": NASTY}
    data["coordinates"][0]["values"][0] = NASTY
    text = explore.page(data)
    assert text.count("</script>") == 2 and "<b>" not in text.split("<script>")[0]
    (tmp_path / "x.html").write_text(text)
    assert held(tmp_path / "x.html")["title"] == NASTY
    assert "http" not in re.sub(r"http-equiv|http://www.w3.org/2000/svg", "", text)


def test_a_run_that_still_trains_is_shown_as_far_as_it_is(tmp_path):
    half = write(tmp_path / "half", experiment(), UPDATES // 2)
    found = held(explore.write([half], tmp_path / "half.html"))
    assert found["steps"] == list(range(UPDATES // 2)) and set(found["made"]) == {UPDATES // 2}
    assert "50%" in found["about"]
    assert_held(found, load(half))


def test_several_directories_stand_side_by_side(out, tmp_path):
    other = write(tmp_path / "longer", experiment(clip=(2.0, 3.0)), UPDATES // 2)
    found = held(explore.write([out, other], tmp_path / "both.html"))
    assert found["runs"] == 16 + 16
    assert next(of["values"] for of in found["coordinates"] if of["name"] == "experiment") == ["run", "longer"]
    assert found["made"] == [UPDATES] * 16 + [UPDATES // 2] * 16
    np.testing.assert_array_equal(
        found["maps"]["adjoint_norm"]["norms"][:16, :, : UPDATES // 2],
        held(explore.write([out], tmp_path / "one.html"))["maps"]["adjoint_norm"]["norms"][:, :, : UPDATES // 2],
    )


def test_layers_are_kept_apart_and_a_page_without_norms_is_one(tmp_path):
    spec = Spec(task="labelled", steps=STEPS, batch=4, vocabulary=9, embedding=2, hidden=(3, 3), cell="lstm")
    text = Experiment("text", (spec,), grid(seeds=4, gain=1.5), UPDATES, chunk=5, probe_every=10, tile=4)
    out = write(tmp_path / "text", text, UPDATES)
    found = held(explore.write([out], tmp_path / "text.html"))
    assert found["layers"] == ["layer 0", "layer 1"]
    assert_held(found, load(out))
    bare = load(out).drop_vars(["adjoint_norm", "adjoint_norm_c", "adjoint_count"])
    assert explore._thinned(explore._read(bare), 100)["maps"] == {}


def test_a_page_is_never_larger_than_it_may_be(out, monkeypatch, tmp_path):
    large = held(explore.write([out], tmp_path / "x.html"))
    monkeypatch.setattr(
        explore, "LARGEST", explore._shell() + 1000 + len(explore._json(explore.payload([out]))) * 4 // 5
    )
    file = explore.write([out], tmp_path / "x.html")
    found = held(file)
    assert file.stat().st_size <= explore.LARGEST
    assert len(found["steps"]) < len(large["steps"]) and {0, UPDATES - 1} <= set(found["steps"])
    assert_held(found, load(out))


@pytest.mark.parametrize("n", [1, 2, 99, 100, 101, 5000])
def test_what_is_kept_has_both_ends_and_is_no_more_than_asked(n):
    kept = explore.spread(n, 100)
    assert kept[0] == 0 and kept[-1] == n - 1 and len(kept) <= 100 and (np.diff(kept) > 0).all()


def test_any_norm_has_a_code():
    norms = np.asarray([np.nan, 0, np.inf, 1e-45, 3.4e38, 1, 0.3], np.float32)
    codes = explore.logs(norms, 7)
    assert codes[:3].tolist() == [explore.MISSING, explore.ZERO, explore.INFINITE]
    np.testing.assert_allclose(codes[3:] / 128, np.log2(norms[3:].astype(float)), atol=1 / 256)
    assert explore.rounded(norms[3:6]).tolist() == pytest.approx(norms[3:6].tolist(), rel=2**-11)


def test_no_file_of_yours_is_written_over(out, tmp_path):
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    for wrong in (mine, tmp_path, tmp_path / "none" / "x.html"):
        with pytest.raises(ConfigError, match="out is"):
            explore.write([out], wrong)
    assert mine.read_text() == "mine"
    with pytest.raises(ConfigError, match="must be a file"):
        explore.write([out], "/dev/null")
    with pytest.raises(ConfigError, match="dirs is empty"):
        explore.main(explore.Config(()))


# --- in a browser ---------------------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(_chromium.PATH is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser(file):
    with _chromium.page() as page:
        page.size(1200, 900)
        yield page
        assert page.errors == []
        assert {address.split(":")[0] for address in page.requests} <= {"file", "about", "data", "blob"}


def pixel(browser, row, column, fx, fy):
    """Where a point of a plot lies in the window."""
    return browser.js(
        f"(() => {{ const p = explore.plan(), r = p.rows.filter(r => r.kind === {row!r})[0], "
        "b = document.querySelector('canvas').getBoundingClientRect(); "
        f"return [b.x + p.x({column}) + {fx} * p.cw, b.y + r.y + (1 - {fy}) * r.h]; }})()"
    )


@pytest.mark.slow
@needs_chromium
def test_the_page_reads_what_python_wrote(browser, file):
    browser.open(f"file://{file}")
    found = held(file)["maps"]["adjoint_norm_c"]
    codes = browser.js("[...explore.data.maps.adjoint_norm_c.codes]")
    said = np.asarray(codes).reshape(found["norms"].shape)
    finite = np.isfinite(found["norms"]) & (found["norms"] > 0)
    np.testing.assert_allclose(np.exp2(said[finite] / 2 ** found["digits"]), found["norms"][finite])
    loss = held(file)["series"]["loss"]["values"].ravel()
    there = browser.js("[...explore.data.series.loss.values].map(v => v === v ? v : null)")
    np.testing.assert_array_equal(np.asarray(there, float), loss)


@pytest.mark.slow
@needs_chromium
def test_a_click_on_a_map_sets_update_and_lag_and_the_address_keeps_them(browser, file):
    browser.open(f"file://{file}#x=linear")
    browser.click_at(*pixel(browser, "map", 1, 10 / 19, 5 / 11))
    assert browser.js("[explore.data.steps[explore.S.u], explore.data.lags[explore.S.lag]]") == [10, 5]
    browser.until("location.hash.includes('u=10&lag=5')")
    again = browser.js("location.hash")
    browser.open(f"file://{file}{again}")
    assert browser.js("[explore.S.u, explore.S.lag, explore.S.x]") == [10, 5, "linear"]


@pytest.mark.slow
@needs_chromium
def test_keys_move_the_update_and_the_lag_and_play_moves_the_curve(browser, file):
    browser.open(f"file://{file}#u=4")
    for key, code in (("ArrowRight", 39), ("ArrowRight", 39), ("ArrowLeft", 37), ("ArrowUp", 38)):
        browser.key(key, code)
    assert browser.js("[explore.S.u, explore.S.lag]") == [5, 0]
    before = browser.js("document.querySelector('canvas').toDataURL()")
    browser.click("#play")
    browser.until("explore.S.u > 7")
    browser.click("#play")
    assert browser.js("document.querySelector('canvas').toDataURL()") != before
    assert browser.js("document.querySelector('#slider').value") == str(browser.js("explore.S.u"))


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("seeds", ["bands", "lines"])
def test_curves_lie_within_their_panels(browser, file, seeds):
    """Whatever is drawn over lags, and of the horizon over updates, at any update: single runs, or bands of them."""
    found, rows = held(file), "explore.plan().rows.filter(r => r.kind === 'series')"
    browser.open(f"file://{file}#seeds={seeds}")
    runs = sorted(set(browser.js("explore.plan().g.at.flat(2)")))
    norms = found["maps"]["adjoint_norm"]["norms"][runs]
    with np.errstate(divide="ignore"):
        there = np.log2(norms[np.isfinite(norms) & (norms > 0)])
    low, high = browser.js("explore.plan().curve")
    assert low < there.min() and there.max() < high
    low, high = browser.js(f"{rows}.filter(r => r.name === 'horizon').map(r => [r.lo, r.hi])[0]")
    horizons = found["series"]["horizon"]["values"][runs]
    assert low < np.nanmin(horizons) and np.nanmax(horizons) < high


@pytest.mark.slow
@needs_chromium
def test_losses_below_zero_are_seen(browser, file):
    row = "explore.plan().rows.filter(r => r.name === 'loss').map(r => [r.logged, r.lo < -4])[0]"
    browser.open(f"file://{file}")
    assert browser.js(row) == [True, False]
    browser.js("explore.data.series.loss.values.fill(-5) && 0")
    browser.click("#rel")  # planned anew
    assert browser.js(row) == [False, True]


@pytest.mark.slow
@needs_chromium
def test_runs_are_picked_by_clicks_and_panels_made_by_any_coordinate(browser, file):
    browser.open(f"file://{file}")
    shape = "(g => [g.rows.length, g.cols.length, g.at.flat().map(r => r.length)])(explore.plan().g)"
    assert browser.js(shape) == [2, 2, [2] * 4]  # one threshold: runs of two are not pooled
    browser.click("#pick-gain-0")
    assert browser.js(shape) == [1, 2, [2, 2]]
    browser.click("#pick-gain-0")
    browser.js("(s => { s.value = 'clip'; s.dispatchEvent(new Event('change')); })(document.querySelector('#row'))")
    assert browser.js("[explore.plan().g.rows, explore.plan().pooled]") == [["clip 1", "clip inf"], []]
    browser.click("#rel")
    browser.click("#show-horizon")
    assert browser.js("[explore.S.rel, explore.S.show.has('horizon')]") == [1, False]
    browser.until("location.hash.includes('rel=1')")


@pytest.mark.slow
@needs_chromium
def test_a_tooltip_has_the_values_that_were_recorded(browser, file):
    browser.open(f"file://{file}#x=linear")
    browser.move(*pixel(browser, "map", 0, 10 / 19, 5 / 11))
    browser.until("!document.querySelector('#tip').hidden")
    said = browser.js("document.querySelector('#tip').textContent")
    assert "update 11, lag 5" in said and "−5.00 (0.03125)" in said  # 0.5⁵


@pytest.mark.slow
@needs_chromium
def test_pictures_hold_what_is_seen_and_names_stay_text(browser, file, tmp_path):
    text = re.sub(r'"rnn tanh"', lambda _: json.dumps(NASTY).replace("<", "\\u003c"), file.read_text())
    (tmp_path / "nasty.html").write_text(text)
    browser.open(f"file://{tmp_path}/nasty.html")
    assert browser.js("document.querySelectorAll('b').length") == 0
    assert browser.js("document.body.textContent.includes('</script><b>')")
    svg = browser.js("decodeURIComponent(explore.pictured('svg').split(',').slice(1).join(','))")
    parsed = f"new DOMParser().parseFromString({json.dumps(svg)}, 'image/svg+xml')"
    assert browser.js(f"{parsed}.querySelectorAll('parsererror, b').length") == 0
    assert browser.js(f"{parsed}.querySelectorAll('image').length") == 4
    assert set(re.findall(r'font-size="([^"]*)"', svg)) == {"11px", "12px"}
    png = base64.b64decode(browser.js("explore.pictured('png')").split(",")[1])
    assert png.startswith(b"\x89PNG") and len(png) > 20_000


@pytest.mark.slow
@needs_chromium
def test_dark_and_light_follow_the_reader_and_the_switch(browser, file):
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.size(1200, 900, dark=True)
    browser.open(f"file://{file}")
    dark = browser.js(ground)
    browser.click("#theme")
    light = browser.js(ground)
    browser.size(1200, 900)
    assert (dark, light) == ("rgb(21, 23, 26)", "rgb(255, 255, 255)")
