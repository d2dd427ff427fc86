"""A server, or the way to it, that says nothing for a while: whoever waited for it is at work again soon after."""

from __future__ import annotations

import anyio
import pytest

from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.folding.projector import Projector
from examples.embedded import Server
from tests.factories import an_app, connections, eventually, total
from tests.faults.proxy import a_proxy

ANSWER_S = 0.5


async def test_append_fold_and_reads_are_back_after_their_connections_fell_silent(
    server: Server, dsn: str, tables: Tables, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in ("recording.recorder", "folding.projector", "reading.follower"):
        monkeypatch.setattr(f"chancy_metrics.plugin.{module}.ANSWER_S", ANSWER_S)
    metrics = Metrics(sync_interval=0.2, append_interval=0.05)
    async with (
        a_proxy(server) as proxy,
        connections(dsn, 1) as (direct,),
        an_app(f"{proxy.dsn(dsn)}&connect_timeout=2", metrics) as (chancy, _),
        metrics.recording(chancy),
    ):
        projector = Projector(chancy, "p")

        async def shown(expected: int) -> bool:
            await projector.run_once()
            found = (await metrics.get_metrics(chancy)).get("app:n")
            return found is not None and sum(value for _, value in found.values_1day) == expected

        await metrics.increment_counter("app:n", 1)
        await eventually(lambda: shown(1))
        proxy.silent = True
        await metrics.increment_counter("app:n", 1)
        with pytest.raises(Exception, match=r"did not answer|timeout"):
            await projector.run_once()
        with anyio.fail_after(20):
            while "could not be appended" not in caplog.text:
                await anyio.lowlevel.checkpoint()
        proxy.silent = False

        await eventually(lambda: shown(2))
        await projector.close()

        assert await total(direct, tables, "app:n") == [2] * 4
    assert f"the server did not answer for {ANSWER_S:g} s" in caplog.text
