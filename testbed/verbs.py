"""What all verbs share: how they are listed, and how they print."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from testbed.errors import InputError, TestbedError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
PLAIN_WIDTH = 110


class Verbs(click.Group):
    """The verbs in the order in which one meets them, and the nearest one for a slip of the keyboard."""

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002  # click calls it so
        return list(self.commands)

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(context, args[0]) is None and not args[0].startswith("-"):
            hint = f"verbs: {', '.join(self.list_commands(context))}"
            raise InputError(f"there is no verb '{args[0]}'{did_you_mean(args[0], self.list_commands(context))}", hint=hint)
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:
            # Whoever read our output has seen enough. click would make that exit code 1, which means something else here.
            from testbed.terminal import nobody_reads

            nobody_reads()


def print_json(data: object) -> None:
    click.echo(json.dumps(data, indent=2, default=str))


def assignments(settings: Sequence[str]) -> dict[str, str]:
    """The values of options that are NAME=VALUE. Raises :class:`InputError`."""
    for one in settings:
        if not one.partition("=")[1] or one.startswith("="):
            raise InputError(f"'{one}' is not NAME=VALUE", hint="for example --set net.core.somaxconn=4")
    return dict(one.split("=", 1) for one in settings)


def own_name() -> str:
    """How one calls this command here: by name where the shell finds it, else by its path."""
    return "testbed" if shutil.which("testbed") else os.path.relpath(sys.argv[0])


def console() -> Console:
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError  # as every other output does; rich would leave with exit code 1

    # Where nobody looks at a terminal nothing is to be cut or folded to its width.
    return Output(highlight=False) if sys.stdout.isatty() else Output(highlight=False, width=PLAIN_WIDTH)


def complain(error: TestbedError) -> None:
    click.echo(f"testbed: {error}", err=True)
