"""The demo's application, made from its environment: real Chancy plugins, at a pace that fits half a minute."""

from __future__ import annotations

import logging
import os

from chancy import Chancy
from chancy.app import setup_default_logger
from chancy.plugin import Plugin
from chancy.plugins.leadership import Leadership
from chancy.plugins.recovery import Recovery
from chancy.plugins.retry import RetryPlugin
from chancy.plugins.workflow import WorkflowPlugin

from chancy_metrics.plugin import Metrics

#: Jobs record through it, so there is one to a process. `DEMO_TOKEN` is what Prometheus has to bear.
metrics = Metrics(sync_interval=1, collection_interval=2, scrape_token=os.environ.get("DEMO_TOKEN"))


def chancy(*extra: Plugin) -> Chancy:
    """Make the application of workers and readers; `DEMO_DSN` names its database."""
    return Chancy(
        os.environ["DEMO_DSN"],
        plugins=[
            metrics,
            RetryPlugin(),  # type: ignore[no-untyped-call]  # Chancy does not annotate it
            Leadership(poll_interval=1, timeout=4),
            Recovery(poll_interval=1),
            WorkflowPlugin(polling_interval=2),
            *extra,
        ],
        log=setup_default_logger(logging.WARNING),
    )


def dashboard() -> Chancy:
    """Make the application that `chancy worker web` serves; `DEMO_USER` logs in with `DEMO_PASSWORD`."""
    from chancy.plugins.api import Api, SimpleAuthBackend  # only this process needs a web server's imports

    users = {os.environ["DEMO_USER"]: os.environ["DEMO_PASSWORD"]}
    return chancy(Api(authentication_backend=SimpleAuthBackend(users)))
