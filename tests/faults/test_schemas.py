"""Two installations in two schemas of one database: a NOTIFY reaches both, and neither takes it for its own."""

from __future__ import annotations

from urllib.parse import quote

from chancy import Worker
from psycopg import sql

from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.folding.projector import Projector, fold_all
from tests.factories import an_app, connections, eventually, total


async def test_another_schemas_folds_keep_no_worker_from_folding(empty_dsn: str, tables: Tables) -> None:
    mine, other = (f"{empty_dsn}&options={quote(f'-csearch_path={schema}')}" for schema in ("mine", "other"))
    metrics = Metrics(sync_interval=0.2, append_interval=0.05)
    async with connections(empty_dsn, 1) as (admin,), connections(mine, 1) as (reading,):
        for schema in ("mine", "other"):
            await admin.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        # Without a leader: this worker folds when it has heard of nobody.
        async with an_app(other) as (noisy, _), an_app(mine, metrics, no_default_plugins=True) as (chancy, _):
            for app in (noisy, chancy):
                await app.migrate()
                await fold_all(app)
            projector = Projector(noisy, "of the other schema")
            async with Worker(chancy, register_signal_handlers=False):
                await metrics.increment_counter("app:n", 1)

                async def shown() -> bool:
                    await projector.heartbeat()
                    return await total(reading, tables, "app:n") == [1] * 4

                await eventually(shown)
            await projector.close()
