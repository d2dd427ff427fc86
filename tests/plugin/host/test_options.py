"""The constructor's arguments."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest

from chancy_metrics.plugin import Metrics


def test_defaults_are_those_of_the_built_in_and_ours() -> None:
    metrics = Metrics()

    assert metrics.sync_interval == 60
    assert metrics.collection_interval == 30
    assert metrics.maximum_metric_age == 90 * 86_400
    assert metrics.max_points == {"1min": 60, "5min": 288, "1hour": 168, "1day": 90}
    assert metrics.max_buffered_points == 1_000_000
    assert metrics.options.max_meta_bytes == 4_096
    assert metrics.options.append_interval == 1.0
    assert Metrics(sync_interval=1).options.append_interval == 0.25
    assert metrics.options.lock_timeout == 0.1
    assert metrics.options.log_retention == 30 * 86_400
    assert metrics.options.strict is False
    assert metrics.options.keep_meta == ()


def test_points_of_one_resolution_leave_the_others_at_their_defaults() -> None:
    assert Metrics(max_points_per_resolution={"5min": 144}).max_points["5min"] == 144
    assert Metrics(max_points_per_resolution={"5min": 144}).max_points["1min"] == 60


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("sync_interval", 0),
        ("sync_interval", -1),
        ("sync_interval", math.inf),
        ("sync_interval", math.nan),
        ("sync_interval", "60"),
        ("sync_interval", True),
        ("collection_interval", 0),
        ("append_interval", 0),
        ("maximum_metric_age", 0),
        ("maximum_metric_age", 1.5),
        ("max_buffered_points", 0),
        ("max_meta_bytes", 0),
        ("max_meta_bytes", 2**20 + 1),
        ("max_buffered_points", 1.5),
        ("max_buffered_points", True),
        ("lock_timeout", 0),
        ("lock_timeout", 0.0001),
        ("lock_timeout", 2_147_484),
        ("lock_timeout", math.inf),
        ("lock_timeout", math.nan),
        ("lock_timeout", True),
        ("collection_interval", math.nan),
        ("append_interval", math.inf),
        ("append_interval", 3_155_760_001),
        ("log_retention", math.nan),
        ("log_retention", math.inf),
        ("maximum_metric_age", math.inf),
        ("maximum_metric_age", True),
        ("max_buffered_points", -1),
        ("max_buffered_points", math.inf),
        ("max_meta_bytes", True),
        ("rules_version", -1),
        ("rules_version", True),
        ("rules_version", 2**31),
        ("log_retention", -3),
        ("log_retention", 10**12),
        ("maximum_metric_age", 10**12),
        ("strict", 1),
        ("keep_meta", "customer"),
        ("keep_meta", [1]),
        ("max_points_per_resolution", {"2min": 5}),
        ("max_points_per_resolution", {"1min": 0}),
        ("max_points_per_resolution", {"1min": 1.5}),
        ("max_points_per_resolution", {"1min": True}),
        ("max_points_per_resolution", {"1day": math.inf}),
    ],
)
def test_a_wrong_value_is_refused_by_keyword_value_and_rule(keyword: str, value: Any) -> None:
    with pytest.raises(ValueError, match=keyword) as refused:
        Metrics(**{keyword: value})

    parts = next(iter(value.items())) if isinstance(value, dict) else value if isinstance(value, list) else (value,)
    assert any(repr(part) in str(refused.value) for part in parts)
    assert "must" in str(refused.value) or "are" in str(refused.value)


def test_the_longest_lock_timeout_is_one_the_database_takes() -> None:
    assert Metrics(lock_timeout=2_147_483).options.lock_wait_ms == 2_147_483_000 < 2**31


def test_a_copy_in_another_process_has_the_same_settings_and_records_for_itself() -> None:
    metrics = Metrics(sync_interval=5, keep_meta=["customer"], max_points_per_resolution={"1min": 7})

    for twin in (pickle.loads(pickle.dumps(metrics)), copy.deepcopy(metrics)):
        assert twin.options == metrics.options
        assert twin.session_id != metrics.session_id
