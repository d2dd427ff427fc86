"""A point is recomputed from one state of log and baseline, whatever changes meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.audit.explain import explain
from chancy_metrics.projections.explain import recompute as module
from tests.factories import Connection, an_app, connections
from tests.projections.verify.test_verify_beside import FIRST_US, let_go, old_days

__all__ = ["old_days"]  # a fixture


async def test_a_day_that_goes_into_the_baseline_meanwhile_counts_once(
    dsn: str, connection: Connection, tables: Tables, old_days: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, went, trusted = module._Attempt._replay, [], []

    async def and_let_one_go(attempt: module._Attempt, *arguments: Any) -> None:
        trusted.append(attempt._trusts_index)
        await replay(attempt, *arguments)
        if not went:
            async with connections(dsn, 1) as (own,):
                went.append(await let_go(own, tables, days=1))

    monkeypatch.setattr(module._Attempt, "_replay", and_let_one_go)
    async with an_app(dsn) as (chancy, _):
        first = datetime.fromtimestamp(FIRST_US / 1e6, UTC)
        found = await explain(chancy, "app:n", first + timedelta(hours=5), resolution="1day")

    assert went == [1]
    assert (found.equal, found.source) == (True, "baseline and raw")
    assert trusted == [True, True]  # begun again for the day, and not read in full for a difference
