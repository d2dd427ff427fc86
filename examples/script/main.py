"""A script without an event loop and without a worker: it records what it did."""

from __future__ import annotations

import os

import psycopg
from chancy import Chancy

from chancy_metrics.plugin import Metrics, Observation

metrics = Metrics()
chancy = Chancy(os.environ["DATABASE_URL"], plugins=[metrics])


def main() -> None:
    # A thread appends in the background; leaving the block appends what is left.
    with metrics.sync_recording(chancy):
        for price in (9.5, 20.0, 120.0):
            metrics.sync_increment_counter("shop:orders", 1)
            metrics.sync_record_histogram_value("shop:basket", price, unit="euro")

    # In a transaction of your own: recorded if, and only if, it commits.
    with psycopg.connect(chancy.dsn) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS payments (euro numeric)")
        cursor.execute("INSERT INTO payments VALUES (149.5)")
        metrics.sync_record_in_transaction(chancy, cursor, Observation.counter("shop:payments"))


if __name__ == "__main__":
    main()
