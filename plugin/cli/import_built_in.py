"""`chancy-metrics import-builtin`: import the points that Chancy's own metrics plugin stored before the switch."""

from __future__ import annotations

from collections.abc import Iterator

import click

from chancy_metrics.events.humanize import counted, moment
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.output import Door
from chancy_metrics.plugin.transfer.import_built_in import BuiltInImported, import_built_in


@command("import-builtin")
@click.pass_obj
def import_built_in_command(door: Door) -> None:
    """Import what Chancy's own metrics plugin stored, so that charts show the time before the switch.

    Run it once, when all workers have this plugin; a second run changes nothing. Imported points have no events behind
    them and no quantiles. The tables of Chancy's plugin stay as they are.
    """
    chancy, _ = door.load()
    done = door.run(import_built_in(chancy))
    door.answer(done, lambda: [*_lines(done)])


def _lines(done: BuiltInImported) -> Iterator[str]:
    if done.already:
        yield f"imported already, up to {moment(done.until)}: nothing was changed"
    elif not done.points:
        yield "Chancy's own metrics plugin has stored no points: nothing to import"
    else:
        yield (
            f"imported {counted(done.points, 'point')} of {counted(done.series, 'series')} with "
            f"{counted(done.observations, 'observation')}, from {moment(done.since)} to {moment(done.until)}"
        )
        yield "they have no events behind them and no quantiles; `audit explain` says of each point what is imported"
    if done.skipped:
        yield f"left out {counted(done.skipped, 'point')} that have no number or no time, or lie between two buckets"
