"""What else of the plugin works for an app needs: its options, found without importing the plugin's class."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Any, Protocol

from chancy import Chancy

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin.host.options import Options

#: What Chancy and its dashboard know the plugin by: the built-in's name, which this one takes the place of.
IDENTIFIER = "chancy.metrics"


class Recording(Protocol):
    """The part of `Metrics` that is asked for here."""

    @property
    def options(self) -> Options: ...

    @property
    def worker_id(self) -> str: ...


def plugin_of(chancy: Chancy) -> Recording:
    """Return the app's plugin.

    Raises:
        MetricsLogError: It has none.
    """
    plugin: Any = chancy.plugins.get(IDENTIFIER)
    if not isinstance(getattr(plugin, "options", None), Options):  # the built-in has the same name, and no options
        raise MetricsLogError(f"{chancy!r} has no metrics log: add chancy_metrics.plugin.Metrics() to its plugins")
    found: Recording = plugin
    return found


def options_of(chancy: Chancy) -> Options:
    """Return the checked settings of the app's plugin; raises like `plugin_of`."""
    return plugin_of(chancy).options


def worker_of(chancy: Chancy) -> str:
    """Return the id under which the app's plugin stores direct calls; the host's name where no worker runs."""
    return plugin_of(chancy).worker_id or socket.gethostname()


def who() -> str:
    """Who works here, for the records: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this uid, as in many containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
