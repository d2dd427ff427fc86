"""`chancy-metrics prune` and `discard`: drop old days of the log, and give up batches that can't be folded."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from chancy_metrics.events.humanize import counted, moment, size
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.output import FOUND_SOMETHING, Door
from chancy_metrics.plugin.cli.types import Duration
from chancy_metrics.plugin.health.dead_letters import Discarded, discard, discard_rule
from chancy_metrics.plugin.host.app import who
from chancy_metrics.plugin.worker.retention import PrunedDay, prune


@command("prune")
@click.option("--dry-run", is_flag=True, help="Print what would be dropped, and change nothing.")
@click.option(
    "--archive",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Write each day into this folder before it is dropped; a day that can't be written is kept.",
)
@click.option(
    "--keep",
    "keep_s",
    type=Duration(),
    help="Drop days older than this instead of log_retention; a shorter time archives days before a worker drops them.",
)
@click.pass_obj
def prune_command(door: Door, dry_run: bool, archive: Path | None, keep_s: float | None) -> None:
    """Drop the days of the log that are older than log_retention.

    The rollups keep what those days added, and so does every rebuild. Workers prune by themselves; after an
    interruption the next run resumes. Exits with 3, and says why, when a day that is due can't be dropped.
    """
    chancy, _ = door.load()
    pruned = door.run(prune(chancy, dry_run=dry_run, archive=archive, keep_s=keep_s))
    door.answer(pruned, lambda: _lines(pruned, dry_run))
    if any(day.blocker for day in pruned):
        sys.exit(FOUND_SOMETHING)


@command("discard")
@click.argument("position", type=int, required=False)
@click.option(
    "--rule", help="Give up what this rule would have made of the batches on which it failed, instead of a batch."
)
@click.option("--why", required=True, help="The reason, which is stored.")
@click.pass_obj
def discard_command(door: Door, position: int | None, rule: str | None, why: str) -> None:
    """Give up the batch at POSITION of the ledger, which can't be read or stored, or what a failing rule makes.

    The batch is not deleted: until its day is pruned, a rebuild that can read it includes it.
    """
    if (position is None) is (rule is None):
        raise click.UsageError("give either a POSITION or --rule")
    if not why.strip():
        raise click.BadParameter("is empty", param_hint="--why")
    chancy, _ = door.load()
    if rule is not None:
        given_up = door.run(discard_rule(chancy, rule, why=why, by=who()))
        text = f"what rule {rule!r} would have made of {counted(given_up, 'batch')} is given up by {who()}: {why}"
        door.answer({"rule": rule, "batches": given_up, "by": who(), "why": why}, lambda: [text])
        return
    assert position is not None
    done = door.run(discard(chancy, position, why=why, by=who()))
    door.answer(done, lambda: [_discarded(done)])


def _discarded(done: Discarded) -> str:
    said = "was given up before" if done.again else "is given up"
    versions = ", ".join(map(str, done.versions))
    rules = f"what {', '.join(map(repr, done.rules))} would have made of " if done.rules else ""
    return (
        f"{rules}the batch at position {done.position} {said} by {done.by} at {moment(done.at)} "
        f"(versions {versions}): {done.why}"
    )


def _lines(pruned: list[PrunedDay], dry_run: bool) -> list[str]:
    if not pruned:
        return ["no day of the log is due for pruning"]
    goes = "would be dropped" if dry_run else "dropped"
    lines = [
        f"{day.day}  {size(day.size_bytes)}  {f'kept ({day.state}): {day.blocker}' if day.blocker else goes}"
        for day in pruned
    ]
    freed = sum(day.size_bytes for day in pruned if not day.blocker)
    return [*lines, f"{'would free' if dry_run else 'freed'} {size(freed)}"]
