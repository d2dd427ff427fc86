"""Command lines in documents and examples: cut into words, and parsed by the command itself, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from chancy.cli import cli, misc, queue, worker

from chancy_metrics.plugin.cli.main import main
from chancy_metrics.plugin.cli.output import Door

for group in (misc.misc_group, queue.queue_group, worker.worker_group):
    cli.cli.add_command(group)  # as chancy.cli.cli.main does before it runs
GROUPS: dict[str, click.Group] = {"chancy-metrics": main, "chancy": cli.cli}


def parse(words: Sequence[str]) -> click.Context:
    """Parse a command line of `chancy-metrics` or `chancy` down to its last command.

    Raises:
        click.ClickException: What the command would end with.
    """
    program = Path(words[0]).name
    group = GROUPS[program]
    with group.make_context(program, list(words[1:]), obj=Door()) as ctx:
        while True:
            name, command, rest = group.resolve_command(ctx, [*getattr(ctx, "_protected_args", []), *ctx.args])
            assert command is not None
            ctx = command.make_context(name, rest, parent=ctx)
            if not isinstance(command, click.Group):
                return ctx
            group = command
