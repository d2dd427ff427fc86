"""`chancy-metrics alert-rules`: print alert rules for Prometheus."""

from __future__ import annotations

import click

from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.output import Door
from chancy_metrics.plugin.telemetry.alert_rules import alert_rules


@command("alert-rules")
@click.pass_obj
def alert_rules_command(door: Door) -> None:
    """Print alert rules for Prometheus, to be put into a file that its `rule_files` names.

    Thresholds are to be changed there: docs/prometheus.md says what each rule is for.
    """
    rules = alert_rules()
    door.answer({"rules": rules}, rules.splitlines)
