"""Stop signals: the first asks, the second insists."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C, and what schedulers send before they take a machine away."""
SAME_SECONDS = 2.0
"""Launchers pass a signal on to us that reached us already: the same one within this time is one."""


class Interrupted(Exception):
    """A signal asked for a stop; everything up to the last finished chunk is saved."""

    def __init__(self, signum: int, seconds: float = 0.0) -> None:
        super().__init__(signum, seconds)
        self.signum, self.seconds = signum, seconds


class Stop:
    """Has a stop been asked for, by which signal (0: a failure elsewhere), and when?"""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._at = 0.0

    def __bool__(self) -> bool:
        return self.signum is not None

    def ask(self, signum: int = 0) -> None:
        """The first to ask is remembered."""
        if self.signum is None:
            self.signum, self._at = signum, time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the stop was asked for."""
        return time.monotonic() - self._at


@contextlib.contextmanager
def awaited() -> Iterator[Stop]:
    """Notes the stop signals that come, for work that looks at `Stop` where it can end well; a second one ends the
    process at once."""
    stop = Stop()

    def note(signum: int, frame: Any) -> None:
        if not stop:
            stop.ask(signum)
            os.write(2, f"{signal.Signals(signum).name}: stopping; a second signal stops at once.\n".encode())
        elif signum != stop.signum or stop.seconds > SAME_SECONDS:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    with _handled(note):
        yield stop


@contextlib.contextmanager
def fatal() -> Iterator[None]:
    """A stop signal ends the process where it stands, with a sentence: for what is half done by nobody's loss, as a
    report.

    Not by an exception: it would come only when XLA has compiled, seconds later, and an interpreter that is taken down
    while XLA still computes crashes. So a thread hears of signals from Python's wake-up file and ends the process.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def end() -> None:
        while heard := os.read(reader, 1):
            if heard[0] in STOPPING:
                name = signal.Signals(heard[0]).name
                os.write(2, f"{name}: stopped at once; the same command goes on from here.\n".encode())
                os._exit(128 + heard[0])
        os.close(reader)

    threading.Thread(target=end, daemon=True).start()
    try:
        with _handled(lambda signum, _: os.write(writer, bytes([signum])), writer):  # whichever comes first
            yield
    finally:
        os.close(writer)


@contextlib.contextmanager
def _handled(handler: Any, wakeup: int = -1) -> Iterator[None]:
    main = threading.current_thread() is threading.main_thread()  # Python lets no other thread handle signals
    before = {s: signal.signal(s, handler) for s in STOPPING} if main else {}
    heard = signal.set_wakeup_fd(wakeup) if main else -1
    try:
        yield
    finally:
        if main:
            signal.set_wakeup_fd(heard)
        for signum, old in before.items():
            signal.signal(signum, old)
