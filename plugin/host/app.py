"""Find an app's plugin and its options without importing the plugin's class."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Any, Protocol

from chancy import Chancy

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin.host.options import Options

#: The plugin's identifier in Chancy and its dashboard: the built-in plugin's, which this one replaces.
IDENTIFIER = "chancy.metrics"


class Recording(Protocol):
    """The part of `Metrics` that is used here."""

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
    """Return "user@host" of this process, for records of who did something."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this uid, as in many containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
