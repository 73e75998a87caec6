"""The page of `analysis.explore` of runs that still train, which follows them: served on this machine alone.

    python -m analysis.live DIR… [--port N]

A process of its own, so that training goes on as without; ends with Ctrl-C. The option `--live` of scripts has a thread
of theirs do the same for as long as they run. Served are the page and which records it is of, to who asks this machine
by its own name.
"""

import contextlib
import html
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import tyro

from analysis import explore
from seqdyn.runs import manifest
from seqdyn.runs.script import LIVE, script
from seqdyn.runs.several import different
from seqdyn.types import ConfigError

_WAITING = '<!DOCTYPE html>\n<meta charset="utf-8"><meta http-equiv="refresh" content="2"><p>{}</p>\n'


class Watched:
    """The page of some run directories, made anew once there are new records. `text` may be called from any thread."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths, self._lock = paths, threading.Lock()
        self._made, self._text = "", ""

    def version(self) -> str:
        """Changes with what is recorded."""
        newest, files = 0, 0
        for one in [one for path in self._paths for one in manifest.directories(path)]:
            for file in (one / "records.zarr" / "recorded").rglob("*"):  # a chunk of updates writes it last
                with contextlib.suppress(FileNotFoundError):  # one that was partial, and is whole by now
                    newest, files = max(newest, file.stat().st_mtime_ns), files + 1
        return f"{newest}-{files}"

    def text(self) -> str:
        """The newest page; one that waits, and says why, where nothing is recorded or can be read just now."""
        with self._lock:
            version = self.version()
            if version != self._made:
                begun = [path for path in self._paths if (path / manifest.NAME).exists()]
                try:
                    data = explore.payload(begun)
                except (ConfigError, RuntimeError, OSError, ValueError) as error:  # only begun, damaged, half written
                    return self._text or _WAITING.format(html.escape(str(error)) if begun else "Nothing has begun yet.")
                self._text, self._made = explore.page(data | {"version": version}), version
            return self._text


def server(paths: Sequence[Path], port: int = 0) -> ThreadingHTTPServer:
    """Listens on loopback, at a free port if it is 0; `serve_forever` serves. Raises ConfigError for what is no run
    directory or is there twice, and where the port is taken."""
    for path in different(paths):
        manifest.read(path)
    return _server(Watched(paths), port)


def serve(paths: Sequence[Path]) -> str:
    """Serves what has begun of these directories until this process ends; returns where."""
    serving = _server(Watched(paths), 0)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    return _address(serving)


LIVE.append(serve)


def _address(serving: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{serving.server_address[1]}/"


def _server(watched: Watched, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mine = {f"{name}:{self.connection.getsockname()[1]}" for name in ("127.0.0.1", "localhost")}
            if self.headers.get("Host") not in mine:  # another site whose name leads here
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path == "/":
                self._send(watched.text(), "text/html")
            elif self.path == "/version":
                self._send(watched.version(), "text/plain")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _send(self, text: str, kind: str) -> None:
            body = text.encode("utf-8", "backslashreplace")
            self.send_response(HTTPStatus.OK)
            for name, value in (
                ("Content-Type", f"{kind}; charset=utf-8"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the reader has gone
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"port is {port}; it must be a free one, or 0 for any: {str(error).rstrip('.')}.") from None


@dataclass(frozen=True)
class Config:
    dirs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, as of analysis.explore."""
    port: int = 0
    """Where to listen; 0 takes one that is free."""


def main(config: Config) -> None:
    if not config.dirs:
        raise ConfigError("dirs is empty; it must be one run directory or more.")
    with server(config.dirs, config.port) as serving:
        print(_address(serving), flush=True)
        serving.serve_forever()


if __name__ == "__main__":
    script(Config, main, __doc__)
