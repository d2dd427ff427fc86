"""The jobs on docs/record.md record what they say, each on the executor that it is shown for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from chancy import Chancy, Job, Queue

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from tests.factories import an_app, eventually, sequence_and_fold, total
from tests.processes import ROOT, module


async def test_jobs_record_in_the_event_loop_in_threads_and_in_child_processes(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, _, _ = (ROOT / "docs" / "record.md").read_text().partition("\n## A script\n")
    text = "\n".join(re.findall(r"^```python\n(.*?)^```", jobs, re.M | re.S))
    (tmp_path / "shop.py").write_text(text.replace("postgresql://localhost/app", dsn))
    await connection.execute("CREATE TABLE invoices (number int)")
    queues = {"mail": Chancy.Executor.Async, "reports": Chancy.Executor.Threaded, "invoices": Chancy.Executor.Process}
    pushed = [
        Job(func="shop.send_receipt", queue="mail", kwargs={"order": 1}),
        Job(func="shop.make_report", queue="reports", kwargs={"month": "May"}),
        Job(func="shop.make_invoice", queue="invoices", kwargs={"order": 1}),
        Job(func="shop.make_invoices", queue="invoices", kwargs={"orders": [2, 3, 4]}),
    ]
    async with an_app(dsn) as (chancy, _):
        for name, executor in queues.items():
            await chancy.declare(Queue(name, executor=executor))
        async for _ in chancy.push_many(pushed):
            pass

    async def have_ended() -> bool:
        cursor = await connection.execute("SELECT count(*) FROM chancy_jobs WHERE completed_at IS NOT NULL")
        return await cursor.fetchone() == (len(pushed),)

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with module(dsn, "chancy.cli.cli", "--app", "shop.chancy", "worker", "start"):
        await eventually(have_ended, within_s=60)
    await sequence_and_fold(connection, tables)

    assert await total(connection, tables, "shop:receipts") == [1] * 4
    assert await total(connection, tables, "shop:report_pages") == [12] * 4
    assert await total(connection, tables, "shop:invoices") == [4] * 4
    assert await total(connection, tables, "global:status:succeeded") == [4] * 4
