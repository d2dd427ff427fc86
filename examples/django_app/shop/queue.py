"""The app's Chancy and its metrics, which the web processes and `chancy worker start` share."""

from __future__ import annotations

import os

from chancy import Chancy

from chancy_metrics.plugin import Metrics

metrics = Metrics()
chancy = Chancy(os.environ["DATABASE_URL"], plugins=[metrics])
