"""`testbed`, and pytest with it, without the time that Python takes to start and to import them, which tests pay hundreds of times.

A *server* has everything imported. For each command a *client*, which is a small process in the command's place, passes it the
arguments, environment, directory and standard streams; the server forks, and the child is the command: its own process, with its own
exit code, doing all that `python -m testbed` or `python -m pytest` does but the imports. As nothing of the test's process is in it,
the fork is safe.

Signals reach the client only, so commands that get any are started in the usual way. When the client is gone its command is killed.

    python warm_command.py serve NAME        until its standard input ends; NAME is of a socket (unix(7): abstract)
    python warm_command.py NAME WORD...      one command, whose first word is testbed or pytest
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import NoReturn

MOST = 1 << 20  # bytes of arguments and environment


def ask(name: str, words: list[str]) -> NoReturn:
    """Have the server do a command with this process's streams, environment and directory, and leave with its exit code."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST)
        server.connect("\0" + name)
        asked = json.dumps({"words": words, "environment": dict(os.environ), "directory": str(Path.cwd())})
        socket.send_fds(server, [asked.encode()], [0, 1, 2])
        answer = server.recv(16)
    if not answer:
        sys.exit("the server of commands is gone")
    status = int(answer)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(os.waitstatus_to_exitcode(status))


def serve(name: str) -> None:
    import gc
    import importlib
    import pkgutil

    import pytest  # noqa: F401

    import testbed

    for module in pkgutil.iter_modules(testbed.__path__, "testbed."):
        # Plugins of pytest are loaded by pytest, which rewrites their assertions.
        if not module.name.startswith(("testbed.pytest_", "testbed.testinfra_", "testbed.__main__")):
            importlib.import_module(module.name)
    gc.freeze()  # or the first look for garbage copies every page
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how an attendant ended
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("\0" + name)
        listener.listen(64)
        print("listening", flush=True)
        while True:
            ready, _, _ = select.select([listener.fileno(), 0], [], [])
            if 0 in ready:
                return
            client, _ = listener.accept()
            if not os.fork():
                listener.close()
                attend(client)
            client.close()


def attend(client: socket.socket) -> None:
    """Start the command that a client wants and tell the client how it ended; returns in the command's process only."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, streams, _, _ = socket.recv_fds(client, MOST, 3)
    command = os.fork()
    if command:
        for one in streams:
            os.close(one)
        ended = os.pidfd_open(command)
        ready, _, _ = select.select([client.fileno(), ended], [], [])
        if ended not in ready:
            os.kill(command, signal.SIGKILL)
        _, status = os.waitpid(command, 0)
        try:
            client.send(str(status).encode())
        except BrokenPipeError:
            pass  # it is gone, as is its command now
        os._exit(0)
    client.close()
    for number, one in enumerate(streams):
        os.dup2(one, number)
        os.close(one)
    wanted = json.loads(asked)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["directory"])
    os.setsid()
    sys.argv = wanted["words"]
    try:
        if sys.argv[0] == "pytest":
            import pytest

            sys.path.insert(0, wanted["directory"])
            sys.exit(pytest.console_main())
        from testbed.cli import main

        main()
    except SystemExit as end:
        # What the interpreter does at its end, but for freeing every object: that would copy all that was imported.
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        ask(sys.argv[1], sys.argv[2:])
