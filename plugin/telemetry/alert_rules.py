"""The alert rules for Prometheus that come with the package."""

from __future__ import annotations

from importlib import resources


def alert_rules() -> str:
    """Return the file of rules, YAML."""
    return resources.files(__package__).joinpath("chancy.rules.yml").read_text("utf-8")
