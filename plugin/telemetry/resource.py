"""What a resource is to OpenTelemetry: its attributes, with an instance id that is the log's and not a process's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import unquote
from uuid import UUID, uuid5

from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import short_transaction
from chancy_metrics.events.errors import SchemaMissing
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.host.bounded_connection import bounded_connection

_NAMESPACE = UUID("6a1f5e0c-3f0b-4d8a-9c57-0f3c1f9f6f1e")


async def resource_of(
    chancy: Chancy, environment: Mapping[str, str], given: Iterable[tuple[str, str]] = ()
) -> dict[str, str]:
    """Return the attributes of the resource whose totals are sent.

    Args:
        environment: Its `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` are taken as OpenTelemetry's exporters do.
        given: Attributes that go before all others.

    Raises:
        SchemaMissing: There is no metrics log.
    """
    named = {"service.name": environment["OTEL_SERVICE_NAME"]} if environment.get("OTEL_SERVICE_NAME") else {}
    return {
        "service.name": "chancy",
        "service.instance.id": str(await _instance_id(chancy)),
        **dict(read_pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))),
        **named,
        **dict(given),
    }


def read_pairs(text: str) -> list[tuple[str, str]]:
    """Return `k=v,k2=v2` as pairs, whose values may be percent-encoded; parts that are no pair are left out."""
    parts = [part.partition("=") for part in text.split(",")]
    return [(key.strip(), unquote(value.strip())) for key, equals, value in parts if equals and key.strip()]


async def _instance_id(chancy: Chancy) -> UUID:
    """Return the id of the metrics log: whatever process sends its totals, wherever, they are the same ones."""
    tables = tables_for(chancy.prefix)
    async with bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                SELECT current_database(), (extract(epoch FROM created_at) * 1000000)::bigint
                FROM {versions}
                WHERE version = 0
                """
            ).format(versions=tables.versions)
        )
        row = await cursor.fetchone()
    if row is None:
        raise SchemaMissing("there is no metrics log in this database: run `chancy misc migrate`")
    database, created_us = row
    return uuid5(_NAMESPACE, f"{database}\0{chancy.prefix}\0{created_us}")
