"""`chancy-metrics grafana`: print a dashboard for Grafana."""

from __future__ import annotations

import json

import click

from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.output import Door
from chancy_metrics.plugin.grafana import postgres, prometheus


@command("grafana")
@click.option(
    "--datasource",
    type=click.Choice(["postgres", "prometheus"]),
    default="postgres",
    show_default=True,
    help="Read the SQL views, or what Prometheus has scraped.",
)
@click.pass_obj
def grafana_command(door: Door, datasource: str) -> None:
    """Print a dashboard for Grafana as JSON: import it, or provision it as a file.

    The one for PostgreSQL has the names of the app's views and needs --app; nothing is read from the database.
    """
    if datasource == "postgres":
        chancy, _ = door.load()
        found = postgres.dashboard(tables_for(chancy.prefix))
    else:
        found = prometheus.dashboard()
    door.answer(found.to_json(), lambda: json.dumps(found.to_json(), indent=2).split("\n"))
