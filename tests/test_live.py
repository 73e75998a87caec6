"""Laws of `analysis.live`: the page of a run that trains follows it, on this machine alone."""

import http.client
import re
import threading

import _chromium
import pytest
from _refusals import refusal
from test_analysis import UPDATES, write
from test_explore import experiment, held, needs_chromium

import seqdyn as sd
from analysis import explore, live
from seqdyn.runs import manifest, script
from seqdyn.types import ConfigError

X64 = False


@pytest.fixture
def served(tmp_path):
    """(run directory with half of its updates, port)."""
    out = write(tmp_path / "run", experiment(), UPDATES // 2)
    with live.server([out]) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.05,), daemon=True).start()
        yield out, serving.server_address[1]
        serving.shutdown()


def got(port, path, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def go_on(out, tmp_path):
    """The run's other half, as training would write it: the same files, with more in them."""
    whole = write(tmp_path / "whole", manifest.experiment(out), UPDATES)
    for file in sorted((whole / "records.zarr").rglob("*")):
        if file.is_file():
            to = out / "records.zarr" / file.relative_to(whole / "records.zarr")
            to.parent.mkdir(parents=True, exist_ok=True)
            file.replace(to)


def test_the_page_follows_the_records(served, tmp_path):
    out, port = served
    _, before = got(port, "/")
    _, version = got(port, "/version")
    assert got(port, "/") == (200, before) and got(port, "/version") == (200, version)  # nothing new, nothing made
    go_on(out, tmp_path)
    assert got(port, "/version")[1] != version
    (tmp_path / "now.html").write_text(got(port, "/")[1])
    found = held(tmp_path / "now.html")
    assert found["steps"] == list(range(UPDATES)) and found["version"] == got(port, "/version")[1]


def test_nothing_else_is_served_and_to_nobody_else(served):
    out, port = served
    for path in ("/manifest.json", "/../manifest.json", "/?", f"{out}/manifest.json"):
        assert got(port, path)[0] == 404
    for host in ("example.org", f"example.org:{port}", "127.0.0.1"):
        assert got(port, "/", host)[0] == got(port, "/version", host)[0] == 403
    with live.server([out]) as other:
        assert other.server_address[0] == "127.0.0.1"
        with pytest.raises(ConfigError, match=f"port is {port}"):
            live.server([out], port)


def test_a_run_that_has_only_begun_is_waited_for(served, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / manifest.NAME).write_bytes((served[0] / manifest.NAME).read_bytes())
    assert f"<p>{begun} has only begun: nothing is recorded yet.</p>" in live.Watched([begun]).text()
    assert "<p>Nothing has begun yet.</p>" in live.Watched([tmp_path / "none"]).text()
    with pytest.raises(ConfigError, match="not a run directory"):
        live.server([tmp_path / "none"])


def test_a_page_that_cannot_be_made_says_why_or_is_refused(served, tmp_path):
    out, _ = served
    assert "run twice; each run directory" in refusal(live.server, [out, out.parent / "." / out.name])
    (out / "records.zarr" / "loss" / "c" / "0" / "0").write_bytes(b"?")
    assert re.search("<p>.*records.zarr/loss is damaged .*; run its command again", live.Watched([out]).text())


def test_a_port_that_is_none_is_a_sentence(served):
    assert re.fullmatch(r"port is -1; it must be a free one, .*[^.]\.", refusal(live.server, [served[0]], -1))


def test_a_page_in_a_file_asks_nobody(served):
    assert "connect-src 'none'" in explore.page(explore.payload([served[0]]))
    assert "connect-src 'self'" in got(served[1], "/")[1]


@pytest.mark.slow
def test_a_script_serves_what_has_begun_from_its_first_chunk_on(tmp_path, monkeypatch, capsys):
    parts = {
        name: sd.Experiment(
            name, sd.grid(sd.Spec(steps=3, batch=2, hidden=(2,), holdout=2), seeds=2), updates=n, chunk=2
        )
        for name, n in (("a", 6), ("b", 4))
    }
    asked = []

    def look(paths):
        address = live.serve(paths)
        asked.append((address, got(int(address.strip("/").rpartition(":")[2]), "/")))
        return address

    monkeypatch.setattr(script, "LIVE", [look])
    options = script.Options(out=tmp_path / "out", verify=False, live=True)
    script.launch_all(parts, options)
    ((address, (status, page)),) = asked
    assert status == 200 and address in capsys.readouterr().err
    (tmp_path / "then.html").write_text(page)
    (tmp_path / "now.html").write_text(got(int(address.strip("/").rpartition(":")[2]), "/")[1])
    then, now = (held(tmp_path / f"{name}.html") for name in ("then", "now"))
    assert then["version"] != now["version"] and then["steps"] == [0, 1] and now["steps"] == [*range(6)]
    script.launch_all(parts, options)  # trained: nothing to follow
    assert len(asked) == 1


def test_a_page_that_nobody_would_see_is_refused(tmp_path, monkeypatch):
    mine = sd.Experiment("a", sd.Spec(steps=3, batch=2, hidden=(2,), holdout=2), updates=2)
    options = script.Options(out=tmp_path / "out", live=True, launcher="slurm")
    assert "live is True" in refusal(script.launch, mine, options)
    monkeypatch.setattr(script, "LIVE", [])
    assert "live is True" in refusal(script.launch, mine, script.Options(out=tmp_path / "out", live=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@needs_chromium
def test_an_open_page_goes_on_with_its_run_and_keeps_what_is_looked_at(served, tmp_path):
    out, port = served
    with _chromium.page() as browser:
        browser.size(1200, 900)
        browser.open(f"http://127.0.0.1:{port}/#rel=1&lag=3")
        assert browser.js("[explore.data.steps.length, explore.S.u]") == [UPDATES // 2, UPDATES // 2 - 1]
        go_on(out, tmp_path)
        browser.until(f"window.explore && explore.data.steps.length === {UPDATES}")
        assert browser.js("[explore.S.u, explore.S.rel, explore.S.lag]") == [UPDATES - 1, 1, 3]
        assert {address for address in browser.requests if not address.startswith("data:")} <= {
            "about:blank",
            f"http://127.0.0.1:{port}/",
            f"http://127.0.0.1:{port}/version",
        } | {address for address in browser.requests if address.startswith(f"http://127.0.0.1:{port}/#")}
