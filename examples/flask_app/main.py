"""A Flask app that records: WSGI has no event loop, so a thread of each process appends."""

from __future__ import annotations

import os

from chancy import Chancy, Job
from flask import Flask

from chancy_metrics.plugin import Metrics

metrics = Metrics()
chancy = Chancy(os.environ["DATABASE_URL"], plugins=[metrics])


def create_app() -> Flask:
    """Called in each process that serves: under a server that forks, after the fork (gunicorn without --preload)."""
    app = Flask(__name__)
    metrics.sync_recording(chancy).__enter__()  # for as long as the process lives; what is left is appended at its end

    @app.post("/orders/<int:order>")
    def place(order: int) -> dict[str, int]:
        metrics.sync_increment_counter("shop:orders", 1)
        chancy.sync_push(Job(func="jobs.send_receipt", queue="mail", kwargs={"order": order}))
        return {"order": order}

    return app
