"""`chancy-metrics serve`: answer Prometheus' scrapes by a server of its own."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.output import Door
from chancy_metrics.plugin.cli.types import Address
from chancy_metrics.plugin.host.options import check_token
from chancy_metrics.plugin.telemetry.exposition import require_text_forms


@command("serve")
@click.option(
    "--listen",
    type=Address(),
    default="127.0.0.1:9470",
    show_default=True,
    help="Address; 0.0.0.0:9470 is all of them.",
)
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the token that a scrape must bear.")
@click.pass_obj
def serve_command(door: Door, listen: tuple[str, int], token_file: Path | None) -> None:
    """Answer Prometheus' scrapes at /metrics, until SIGTERM.

    Without --token-file the token is the app's Metrics(scrape_token=…); if there is none either, anybody may scrape.
    """
    chancy, metrics = door.load()
    token = metrics.options.scrape_token if token_file is None else _read_token(token_file)
    try:
        from chancy_metrics.plugin.http.scrape_server import PATHS, bind, serve
    except ImportError as error:
        raise MetricsLogError(f"serving needs {error.name}: pip install 'chancy-metrics[prometheus]'") from None
    require_text_forms()
    with bind(*listen) as listening:
        who = "who bears the token" if token else "anybody: give --token-file to change that"
        url = f"http://{_shown(listening)}{PATHS[0]}"
        door.answer({"url": url, "token": token is not None}, lambda: [f"scrape {url}; it answers {who}"])
        door.run(serve(chancy, listening, token, door.tell))


def _read_token(path: Path) -> str:
    try:
        return check_token(path.read_text("utf-8").strip())
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise click.BadParameter(f"{str(path)!r} has no token: {said}", param_hint="--token-file") from None


def _shown(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
