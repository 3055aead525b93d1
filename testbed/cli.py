"""The `testbed` command: thin. It reads arguments, calls one function, prints what that gives.

Exit codes: 0 done and held; 1 a check failed; 2 the user's input is wrong; 3 the lab or the engine broke; 4 nothing was sent
(`endian`); 130 Ctrl-C.
`exec` and `shell` leave with the remote command's own code.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import click

from testbed import verbs_endian, verbs_experiment, verbs_host, verbs_lab, verbs_machine, verbs_report, verbs_sweep
from testbed.errors import InputError, TestbedError
from testbed.verbs import Verbs, complain

INTERRUPTED = 130


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="testbed", prog_name="testbed")
def testbed() -> None:
    """Client and server socket code on several real hosts of both byte orders.

    \b
    A first lab:
      testbed up cross-endian          little- and big-endian hosts on one network
      testbed exchange                 let them talk, and see the bytes on the wire
      testbed exec big-a uname -m      run something on a host
      testbed down cross-endian        remove it all

    A HOST is a host's name, or LAB/HOST where several labs have one of that name.
    """


for verb in (
    *(verbs_lab.up, verbs_lab.down, verbs_lab.reset, verbs_lab.status),
    *(verbs_host.exec_, verbs_host.shell, verbs_host.logs, verbs_host.put, verbs_host.get, verbs_host.capture),
    *(verbs_lab.exchange, verbs_endian.endian, verbs_experiment.experiment, verbs_sweep.sweep, verbs_report.report),
    *(verbs_machine.validate, verbs_machine.schema, verbs_machine.graph),
    *(verbs_machine.images, verbs_machine.doctor, verbs_machine.setup),
):
    testbed.add_command(verb)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: every error of ours becomes a message and an exit code."""
    # Most verbs are over in a second and make little garbage; looking for it while modules load is a tenth of that.
    gc.set_threshold(100_000, 50, 100)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_interrupt)
    _open_missing_streams()
    sys.exit(_run(lambda: testbed.main(args=arguments, prog_name="testbed", standalone_mode=False)))


def _as_interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _run(verb: Callable[[], object]) -> int:
    try:
        verb()
    except TestbedError as error:
        complain(error)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return InputError.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("testbed: interrupted", err=True)
        return INTERRUPTED
    except OSError as error:
        # Mostly our own output: a full disk.
        click.echo(f"testbed: {': '.join(str(part) for part in (error.filename, error.strerror or error) if part)}", err=True)
        return TestbedError.exit_code
    return 0


def _open_missing_streams() -> None:
    """Standard streams that were closed are /dev/null: else the next file or socket to be opened would be one of them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # for as long as this process lives
