"""Processes as a user starts them, but forked from one that has imported everything, which takes seconds.

Each is a process of its own, with its argv, environment, signals, devices and exit code. Only what is read by imports,
as JAX's own variables, is that of the tests; a warning while a script is imported is no error here, and a submodule
that it forgot to import may be there already.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Process:
    """As `subprocess.Popen` of Python with `argv`, a script and what follows it or '-c' and code.

    stderr goes with stdout, or if `split` is in `stderr` at the end. PYTHONWARNINGS may be one action.
    """

    def __init__(self, argv, split=False, cwd=ROOT, **environment):
        ours, theirs = os.pipe()
        self.stdout, self.stderr, self.returncode = os.fdopen(ours), "", None
        self._apart = tempfile.TemporaryFile("w+") if split else None
        environ = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        wanted = {"argv": [str(a) for a in argv], "cwd": str(cwd), "environ": environ}
        self.pid = _ask(wanted, [theirs, self._apart.fileno() if self._apart else theirs])
        os.close(theirs)

    def poll(self, how=os.WNOHANG):
        if self.returncode is None:
            self.returncode = _ask({"pid": self.pid, "how": how})
        return self.returncode

    def send_signal(self, signum):
        os.kill(self.pid, signum)

    def finish(self, timeout=300):
        """What it said on stdout from here to its end; killed after `timeout` seconds."""
        timer = threading.Timer(timeout, self.send_signal, (signal.SIGKILL,))
        timer.start()
        with self.stdout:
            text = self.stdout.read()
        self.poll(0)
        timer.cancel()
        if self._apart:
            with self._apart:
                self._apart.seek(0)
                self.stderr = self._apart.read()
        return text


@functools.cache
def _server():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        here = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}  # threads do not survive a fork
        at = theirs.fileno()
        return ours, subprocess.Popen([sys.executable, __file__, str(at)], env=here, pass_fds=[at])


def _ask(wanted, files=()):
    ours, _ = _server()
    socket.send_fds(ours, [json.dumps(wanted).encode()], files)
    return json.loads(ours.recv(1 << 20))


def stop():
    """Ends what processes are forked from, if there were any."""
    if _server.cache_info().currsize:
        ours, server = _server()
        ours.close()
        server.wait()
        _server.cache_clear()


def _serve(server):
    """Answers until it is in a child, of which it returns what was wanted, or there is nobody left to answer."""
    while True:
        message, files, *_ = socket.recv_fds(server, 1 << 20, 2)
        if not message:
            return None
        wanted = json.loads(message)
        if "pid" in wanted:
            done, status = os.waitpid(wanted["pid"], wanted["how"])
            answer = os.waitstatus_to_exitcode(status) if done else None
        elif (answer := os.fork()) == 0:
            server.close()
            for number, file in enumerate(files, start=1):
                os.dup2(file, number)
                os.close(file)
            return wanted
        for file in files:
            os.close(file)
        server.send(json.dumps(answer).encode())


def _run(argv, cwd, environ):
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    # Those of the server believe that their files can be searched, as its own can.
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)
    warnings.simplefilter(environ.get("PYTHONWARNINGS", "default"))
    sys.argv, sys.orig_argv = argv, [sys.executable, *argv]
    if argv[0] == "-c":
        sys.argv = ["-c", *argv[2:]]
        exec(argv[1], {"__name__": "__main__"})
    else:
        runpy.run_path(str(ROOT / argv[0]), run_name="__main__")


if __name__ == "__main__":
    for folder in ("experiments", "experiments/reproduce"):
        for path in sorted((ROOT / folder).glob("*.py")):
            importlib.import_module(f"{folder.replace('/', '.')}.{path.stem}")
    for late in ("scipy.stats", "sklearn.datasets", "xarray", "orbax.checkpoint", "zarr"):  # loaded when needed
        with contextlib.suppress(ImportError):  # an extra that is not installed
            importlib.import_module(late)
    gc.set_threshold(20_000, 20, 50)  # a trace makes many objects and few cycles
    gc.freeze()  # nothing that was imported is searched for cycles again, nor its pages copied for that
    child = _serve(socket.socket(fileno=int(sys.argv[1])))
    if child:
        _run(**child)
