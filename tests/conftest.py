"""Ctrl-C as a program in a terminal has it, however the tests were started: a shell without job control ignores it in what it runs in the
background, and whatever is started from there inherits that."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
