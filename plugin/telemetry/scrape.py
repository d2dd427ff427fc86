"""Read all that a scrape answers: the totals as families, and the health of the pipeline.

Every scrape reads the database, so that whatever process answers, the numbers are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import NamedTuple, TypeVar

import psycopg
from chancy import Chancy

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.hot_standby import error_sentence
from chancy_metrics.events.off_loop import in_thread
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.telemetry.families import SAMPLED_S, Family, families_of
from chancy_metrics.plugin.telemetry.pipeline import pipeline_families
from chancy_metrics.plugin.telemetry.totals import read_totals
from chancy_metrics.projections.totals.read import Totals

#: Seconds to advance the totals, and to read them and the status each: a scrape has 10 by default.
_TOTALS_S, _READ_S = 2.0, 4.0

_Read = TypeVar("_Read")


class Scrape(NamedTuple):
    """What a scrape answers.

    Attributes:
        missing: Why the totals or the status could not be read; [] if all was.
        totals: What most families were made of; None if they could not be read.
    """

    families: list[Family]
    missing: list[str]
    totals: Totals | None = None


async def read_scrape(chancy: Chancy) -> Scrape:
    """Read totals and status; if one can't be read, answer the other one, and say so.

    Raises:
        MetricsLogError: Neither can be read.
        psycopg.Error: The database can't be reached, or refuses both.
    """
    failed: list[Exception] = []
    totals = await _or_why(read_totals(chancy, within_s=_TOTALS_S), failed)
    status = await _or_why(read_status(chancy), failed)
    if totals is None and status is None:
        raise failed[-1]
    options = options_of(chancy)
    # A sample is in the totals once it was appended, and sequenced by a fold.
    sampled_s = max(SAMPLED_S, 3 * options.collection_interval + 2 * options.sync_interval)
    families = [] if totals is None else await in_thread(families_of, totals, sampled_s=sampled_s)
    return Scrape(pipeline_families(status, totals) + families, [error_sentence(error) for error in failed], totals)


async def _or_why(reading: Awaitable[_Read], failed: list[Exception]) -> _Read | None:
    """Return what is read, or None, and keep why it can't be."""
    try:
        async with asyncio.timeout(_READ_S):
            return await reading
    except TimeoutError:
        failed.append(MetricsLogError(f"the database did not answer within {_READ_S:g} s"))
    except (MetricsLogError, psycopg.Error) as error:
        failed.append(error)
    return None
