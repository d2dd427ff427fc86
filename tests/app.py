"""A Chancy app for tests of commands; its database comes from the environment."""

from __future__ import annotations

import os

from chancy import Chancy

from chancy_metrics.plugin import Metrics


def chancy() -> Chancy:
    return Chancy(os.environ["DSN"], plugins=[Metrics(sync_interval=1)])


no_app = 1
built_in = Chancy("postgresql://")
