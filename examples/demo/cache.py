"""Print what a process that has just begun reads from the shared cache: `python -m examples.demo.cache`."""

from __future__ import annotations

import asyncio
import json

from chancy_metrics.events.schema import RESOLUTIONS

from .app import chancy, metrics


async def read() -> dict[str, dict[str, float]]:
    """Total every counter at every resolution."""
    async with chancy() as app:
        found = await metrics.get_metrics(app)
    return {
        resolution: {
            key: sum(value for _, value in metric.values[resolution] if not isinstance(value, dict))
            for key, metric in found.items()
            if metric.metric_type == "counter"
        }
        for resolution in RESOLUTIONS
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(read())))
