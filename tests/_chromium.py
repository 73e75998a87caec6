"""Debian's Chromium without a window, through its DevTools protocol over a pipe: real clicks and keys, no network."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time

PATH = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 60.0


class Page:
    """A page of a browser: evaluates, clicks, types, takes pictures."""

    def __init__(self, to, of):
        self._to, self._of, self._rest, self._id, self._session = to, of, b"", 0, None
        self.errors = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.requests = []

    def call(self, method, **params):
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            said = self._message()
            if said.get("id") == self._id:
                assert "error" not in said, f"{method}: {said['error']}"
                return said["result"]
            self._note(said)

    def _message(self):
        while b"\0" not in self._rest:
            read = os.read(self._of, 1 << 20)
            assert read, "Chromium has ended"
            self._rest += read
        one, self._rest = self._rest.split(b"\0", 1)
        return json.loads(one)

    def _note(self, said):
        method, params = said.get("method"), said.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def size(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address):
        self.call("Page.navigate", url="about:blank")  # else a new fragment is the same page
        self.call("Page.navigate", url=address)
        self.until("document.documentElement?.dataset.ready === '1'")

    def js(self, expression):
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression):
        end = time.monotonic() + SECONDS
        while not self.js(expression):
            assert time.monotonic() < end, f"{expression}: not in {SECONDS} s; {self.errors}"
            time.sleep(0.02)

    def move(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click_at(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def click(self, selector):
        box = self.js(
            f"(e => (e.scrollIntoView({{block: 'nearest'}}), e = e.getBoundingClientRect(), "
            f"[e.x + e.width / 2, e.y + e.height / 2]))(document.querySelector({json.dumps(selector)}))"
        )
        self.click_at(*box)

    def key(self, key, code=0, shift=False):
        text = {"text": key} if len(key) == 1 else {}
        same = dict(key=key, windowsVirtualKeyCode=code, modifiers=8 if shift else 0)
        self.call("Input.dispatchKeyEvent", type="keyDown", **same, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **same)

    def picture(self, path, whole=False):
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def page():
    """A new browser with a profile of its own; ended, with all its processes, afterwards."""
    (low, to), (of, lower) = os.pipe(), os.pipe()
    read, write = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (low, lower))  # out of the way of 3 and 4
    os.close(low)
    os.close(lower)
    with tempfile.TemporaryDirectory(prefix="seqdyn-chromium-", ignore_cleanup_errors=True) as profile:
        flags = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --hide-scrollbars"
        # Of the shell, which has pipes at 3 and 4, the browser takes the place.
        command = f'exec "$0" "$@" 3<&{read} 4>&{write}'
        started = subprocess.Popen(
            ["bash", "-c", command, PATH, *flags.split(), f"--user-data-dir={profile}", "--remote-debugging-pipe"],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        try:
            yield Page(to, of)
        finally:
            with contextlib.suppress(OSError):
                os.write(to, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
            try:
                started.wait(10)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
            os.close(to)
            os.close(of)
