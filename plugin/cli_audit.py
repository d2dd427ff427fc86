"""`chancy-metrics audit`: from the numbers back to the facts, and proof that they are the facts."""

from __future__ import annotations

import click


@click.group("audit")
def audit() -> None:
    """Read the raw events, explain a number by them, and prove that they are what was written."""
