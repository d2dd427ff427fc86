"""Dask clusters for tests: a scheduler and its workers on this machine, without pages."""

from __future__ import annotations

from distributed import LocalCluster


def a_cluster(*, workers: int, processes: bool) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=processes,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        silence_logs=60,
    )
