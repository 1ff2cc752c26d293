"""Ctrl-C and SIGTERM on the command line: one exception, which nothing on its way up may lose."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """A signal asked the process to stop; no `except Exception` shall swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def _on_signals(action: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, action)


def _stop(number: int, frame: FrameType | None) -> None:
    _on_signals(signal.SIG_DFL)  # a second one stops at once; records are whole or absent either way
    raise Interrupted(number)


def _ask_again(number: int) -> None:
    # Not `is _stop`: the Trainer of a fit that has begun meanwhile wraps it. The default: another signal has come through.
    if signal.getsignal(number) is not signal.SIG_DFL:
        os.kill(os.getpid(), number)


def _not_lost(ignored: Any) -> None:
    """Python drops what is raised inside a finalizer, and the garbage between two fits is full of them: ask again, after it."""
    if not isinstance(ignored.exc_value, Interrupted):
        sys.__unraisablehook__(ignored)
        return
    _on_signals(_stop)
    again = threading.Timer(0.02, _ask_again, [ignored.exc_value.number])
    again.daemon = True
    again.start()


def listen() -> None:
    """From now on either signal raises `Interrupted` in the main thread."""
    _on_signals(_stop)
    sys.unraisablehook = _not_lost
