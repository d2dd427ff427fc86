"""`chancy-metrics fold`: sequence and fold all waiting batches without a worker."""

from __future__ import annotations

import click

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.humanize import counted as in_numbers
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.output import Door
from chancy_metrics.plugin.folding.projector import Round, fold_all
from chancy_metrics.plugin.worker.maintenance import mend_horizons
from chancy_metrics.projections.versions.outcome import Outcome


@command("fold")
@click.pass_obj
def fold_command(door: Door) -> None:
    """Sequence and fold all waiting batches, then exit.

    Workers do this by themselves: it is for a cluster whose workers are down.
    """
    chancy, metrics = door.load()
    done = door.run(fold_all(chancy, rules=metrics.options.rules))
    text = (
        f"sequenced {in_numbers(done.batches, 'batch')}, folded {in_numbers(done.events, 'event')}, "
        f"now at position {done.position}"
    )
    if done.reason is not None:
        raise MetricsLogError(f"not everything is folded ({text}): {done.reason}; {_after(done)}")
    mended = door.run(mend_horizons(chancy, metrics.options))
    found = {"batches": done.batches, "events": done.events, "position": done.position, "mended": mended}
    door.answer(found, lambda: [text, *mended])


def _after(done: Round) -> str:
    """Say what to do if not everything could be folded."""
    if done.outcome is Outcome.BUSY:
        return "wait for it to end, or run `chancy-metrics fold` again"
    return "`chancy-metrics status` names the cause, and `chancy-metrics discard` gives up a batch"
