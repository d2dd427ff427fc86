"""`chancy-metrics audit`: from the numbers back to the facts, and proof that they are the facts."""

from __future__ import annotations

import click

from chancy_metrics.plugin.cli.events import events_command, job_command
from chancy_metrics.plugin.cli.explain import explain_command
from chancy_metrics.plugin.cli.output import Section
from chancy_metrics.plugin.cli.proof import check_command, export_command, import_command, seal_command


@click.group("audit", cls=Section)
def audit() -> None:
    """Read the raw events, explain a number by them, and prove that they are what was written."""


audit.add_command(events_command)
audit.add_command(job_command)
audit.add_command(explain_command)
for command in (seal_command, check_command, export_command, import_command):
    audit.add_command(command)
