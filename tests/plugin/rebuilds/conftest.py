"""A Dask cluster for tests of rebuilds whose tasks die."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import LocalCluster

from tests.plugin.parallel.clusters import a_cluster
from tests.rules import DIED


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two worker processes of a Dask cluster."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(DIED, str(tmp_path_factory.mktemp("dask") / "died"))  # which its workers inherit
        with a_cluster(workers=2, processes=True) as made:
            yield made
