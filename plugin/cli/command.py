"""The click classes of the commands: every command takes `--json` and ends with an exit code and one sentence."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from typing import Any, NoReturn

import click

from chancy_metrics.plugin.cli.errors import TRACEBACK, sentence_of
from chancy_metrics.plugin.cli.output import COULD_NOT, FINE, INTERRUPTED, Aside, Door, drop_unwritten
from chancy_metrics.plugin.host.redaction import WithoutPasswords, without_password

_NAME = "chancy-metrics"
#: Its threads outlive a command and log why they can't connect, with the part of the DSN that libpq could not read.
_POOL_LOGGER = logging.getLogger("psycopg.pool")
_HIDING = WithoutPasswords()
_EMPTY_OPTION = re.compile(r"--[a-z-]+=")


class Command(click.Command):
    """A command that takes `--json` and prints through the door."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(
            click.Option(
                ["--json"],
                is_flag=True,
                expose_value=False,
                callback=_take_json,
                help="Print JSON, one value per line; an error becomes JSON with its message and the exit code.",
            )
        )

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        return _through_the_door(super().get_help_option(ctx))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse empty arguments, which a shell makes of variables that are not set."""
        if any(one == "" or _EMPTY_OPTION.fullmatch(one) for one in args):
            raise click.UsageError("an argument is empty: is a variable of the shell not set?", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what loggers and the app print meanwhile goes to stderr."""
        aside = Aside(ctx.find_object(Door) or Door())
        with redirect_stdout(aside), redirect_stderr(aside):
            return super().invoke(ctx)


class Section(click.Group):
    """A group of commands, whose list shows whole sentences."""

    command_class = Command

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        return _through_the_door(super().get_help_option(ctx))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            text = " ".join(((command and command.help) or "").split("\n\n")[0].split())
            rows.append((name, text.split(". ")[0].rstrip(".") + "."))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Front(Section):
    """`chancy-metrics` itself: makes the door, and turns every outcome into an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run, and exit with `FINE`, `COULD_NOT`, `WRONG_USAGE`, `FOUND_SOMETHING` or `INTERRUPTED`."""
        arguments = list(sys.argv[1:] if args is None else args)
        self._main_shell_completion(extra, prog_name or _NAME, complete_var)
        door = Door(as_json="--json" in arguments)
        _POOL_LOGGER.addFilter(_HIDING)  # once, however often
        sys.exit(self._run(door, arguments, extra))

    def _run(self, door: Door, arguments: list[str], extra: dict[str, Any]) -> int:
        try:
            with self.make_context(_NAME, arguments, obj=door, **extra) as ctx:
                self.invoke(ctx)
            return FINE
        except (click.exceptions.Exit, SystemExit) as end:
            return end.exit_code if isinstance(end, click.exceptions.Exit) else _code(end)
        except (KeyboardInterrupt, click.Abort):
            return INTERRUPTED
        except BrokenPipeError:
            drop_unwritten(door.out)
            return FINE
        except click.ClickException as error:
            return _refuse_usage(door, error)
        except Exception as error:  # every error becomes a sentence
            if os.environ.get(TRACEBACK):
                text = "".join(traceback.format_exception(error))
                door.tell(*without_password(text, door.chancy.dsn if door.chancy else "").split("\n"))
            return door.refuse(sentence_of(error, door.chancy), COULD_NOT)


def _refuse_usage(door: Door, error: click.ClickException) -> int:
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        door.tell(*error.format_message().split("\n"))
        return error.exit_code
    said = " ".join(error.format_message().split())
    ctx = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and ctx is not None:
        said = f"{said.rstrip('.')}; `{ctx.command_path} --help` says more"
    return door.refuse(said, error.exit_code)


def _code(end: SystemExit) -> int:
    return end.code if isinstance(end.code, int) else FINE if end.code is None else COULD_NOT


def _take_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and (door := ctx.find_object(Door)) is not None:
        door.as_json = True


def _through_the_door(option: click.Option | None) -> click.Option | None:
    if option is not None:
        option.callback = _show_help
    return option


def _show_help(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        (ctx.find_object(Door) or Door()).say(*ctx.get_help().split("\n"))
        ctx.exit()


#: Declares a command, as click's.
command = partial(click.command, cls=Command)
