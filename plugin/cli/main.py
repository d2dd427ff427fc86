"""The groups `chancy-metrics` and `chancy-metrics audit`: every command is added to one of them here.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the command found a problem, 130 interrupted.
"""

from __future__ import annotations

import click

from chancy_metrics.plugin.cli.alert_rules import alert_rules_command
from chancy_metrics.plugin.cli.backtest import backtest_command
from chancy_metrics.plugin.cli.command import Front, Section
from chancy_metrics.plugin.cli.events import events_command, job_command
from chancy_metrics.plugin.cli.explain import explain_command
from chancy_metrics.plugin.cli.fold import fold_command
from chancy_metrics.plugin.cli.grafana import grafana_command
from chancy_metrics.plugin.cli.import_built_in import import_built_in_command
from chancy_metrics.plugin.cli.mark import mark_command
from chancy_metrics.plugin.cli.otlp import otlp_command
from chancy_metrics.plugin.cli.output import APP, Door
from chancy_metrics.plugin.cli.proof import check_command, export_command, import_command, seal_command
from chancy_metrics.plugin.cli.rebuild import rebuild_command, swap_command, undo_command, versions_command
from chancy_metrics.plugin.cli.report import report_command
from chancy_metrics.plugin.cli.retention import discard_command, prune_command
from chancy_metrics.plugin.cli.serve import serve_command
from chancy_metrics.plugin.cli.status import status_command
from chancy_metrics.plugin.cli.verify import completeness_command, verify_command
from chancy_metrics.plugin.host.one_arena import use_one_arena


@click.group(cls=Front, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--app",
    "-a",
    envvar=APP,
    show_envvar=True,
    help="Import path of the Chancy app, or of a function that returns one.",
)
@click.version_option(package_name="chancy-metrics")
@click.pass_obj
def main(door: Door, app: str | None) -> None:
    """Inspect, repair and audit the metrics of a Chancy app."""
    use_one_arena()
    door.app = app


@main.group(cls=Section)
def audit() -> None:
    """List raw events, explain a number by its events, and prove that the log is unchanged."""


for one in (
    *(report_command, status_command, fold_command, verify_command, completeness_command),
    *(rebuild_command, swap_command, undo_command, versions_command),
    *(prune_command, discard_command, mark_command, backtest_command),
    *(serve_command, otlp_command, alert_rules_command, import_built_in_command),
    grafana_command,
):
    main.add_command(one)
for one in (
    *(events_command, job_command, explain_command),
    *(seal_command, check_command, export_command, import_command),
):
    audit.add_command(one)
