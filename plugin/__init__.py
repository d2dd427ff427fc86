"""The public API: everything a user imports, and the only module whose names are promised.

Each name is imported when it is first used: a worker that only records loads neither numpy nor the HTTP routes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chancy_metrics.events.batch import JobColumns
    from chancy_metrics.events.chain import Seal, read_seals
    from chancy_metrics.events.errors import (
        AlreadyRunning,
        Damaged,
        DamagedExport,
        ImportRefused,
        InvalidObservation,
        MetricsLogError,
        NotRecording,
        OutOfMemory,
        PluginShared,
        PrefixTooLong,
        SchemaMissing,
        StuckAt,
        TableLocked,
        TotalsNotReady,
        VersionRefused,
        WorkersLost,
        WrongMoment,
    )
    from chancy_metrics.events.facts import Observation
    from chancy_metrics.plugin.alerts.backtest import Backtest, backtest
    from chancy_metrics.plugin.audit.events import JobLife, events, job_life
    from chancy_metrics.plugin.audit.explain import Explained, explain
    from chancy_metrics.plugin.audit.find_series import UnknownSeries
    from chancy_metrics.plugin.audit.marks import Mark, TakenBack, mark, marks, take_back
    from chancy_metrics.plugin.audit.seal import LogCheck, check, seal
    from chancy_metrics.plugin.health.completeness import Completeness, completeness
    from chancy_metrics.plugin.health.dead_letters import Discarded, discard, discard_rule
    from chancy_metrics.plugin.health.status import Status
    from chancy_metrics.plugin.health.status_reader import read_status
    from chancy_metrics.plugin.health.verify import Verified, verify
    from chancy_metrics.plugin.host.progress import LedgerProgress, RebuildProgress
    from chancy_metrics.plugin.metrics import Metrics
    from chancy_metrics.plugin.reading.history import Metric
    from chancy_metrics.plugin.reading.window import MetricPoint, Window, WindowMetric
    from chancy_metrics.plugin.rebuilds.listing import VersionInfo, list_versions
    from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt, rebuild
    from chancy_metrics.plugin.rebuilds.swap import abort, swap, undo
    from chancy_metrics.plugin.rebuilds.totals import RebuiltTotals, rebuild_totals
    from chancy_metrics.plugin.summary.reader import report
    from chancy_metrics.plugin.summary.report import Report
    from chancy_metrics.plugin.telemetry.totals import read_totals
    from chancy_metrics.plugin.transfer.abandon_import import Abandoned, abandon_import
    from chancy_metrics.plugin.transfer.export_log import export_log
    from chancy_metrics.plugin.transfer.export_writer import Exported
    from chancy_metrics.plugin.transfer.import_built_in import BuiltInImported, import_built_in
    from chancy_metrics.plugin.transfer.import_log import Imported, import_log
    from chancy_metrics.plugin.worker.retention import PrunedDay, prune
    from chancy_metrics.projections.rules.rule_set import Derived
    from chancy_metrics.projections.search.event import Event
    from chancy_metrics.projections.search.query import EventCursor, EventQuery
    from chancy_metrics.projections.totals.read import Total, Totals

__all__ = [
    "Abandoned",
    "AlreadyRunning",
    "Backtest",
    "BuiltInImported",
    "Completeness",
    "Damaged",
    "DamagedExport",
    "Derived",
    "Discarded",
    "Event",
    "EventCursor",
    "EventQuery",
    "Explained",
    "Exported",
    "ImportRefused",
    "Imported",
    "InvalidObservation",
    "JobColumns",
    "JobLife",
    "LedgerProgress",
    "LogCheck",
    "Mark",
    "Metric",
    "MetricPoint",
    "Metrics",
    "MetricsLogError",
    "NotRecording",
    "Observation",
    "OutOfMemory",
    "PluginShared",
    "PrefixTooLong",
    "PrunedDay",
    "RebuildProgress",
    "Rebuilt",
    "RebuiltTotals",
    "Report",
    "SchemaMissing",
    "Seal",
    "Status",
    "StuckAt",
    "TableLocked",
    "TakenBack",
    "Total",
    "Totals",
    "TotalsNotReady",
    "UnknownSeries",
    "Verified",
    "VersionInfo",
    "VersionRefused",
    "Window",
    "WindowMetric",
    "WorkersLost",
    "WrongMoment",
    "abandon_import",
    "abort",
    "backtest",
    "check",
    "completeness",
    "discard",
    "discard_rule",
    "events",
    "explain",
    "export_log",
    "import_built_in",
    "import_log",
    "job_life",
    "list_versions",
    "mark",
    "marks",
    "prune",
    "read_seals",
    "read_status",
    "read_totals",
    "rebuild",
    "rebuild_totals",
    "report",
    "seal",
    "swap",
    "take_back",
    "undo",
    "verify",
]

#: Modules below `chancy_metrics`, and the public names that each defines.
_DEFINED_IN = {
    "events.batch": "JobColumns",
    "events.chain": "Seal read_seals",
    "events.errors": (
        "AlreadyRunning Damaged DamagedExport ImportRefused InvalidObservation MetricsLogError NotRecording "
        "OutOfMemory PluginShared PrefixTooLong SchemaMissing StuckAt TableLocked TotalsNotReady VersionRefused "
        "WorkersLost WrongMoment"
    ),
    "events.facts": "Observation",
    "plugin.alerts.backtest": "Backtest backtest",
    "plugin.audit.events": "JobLife events job_life",
    "plugin.audit.explain": "Explained explain",
    "plugin.audit.find_series": "UnknownSeries",
    "plugin.audit.marks": "Mark TakenBack mark marks take_back",
    "plugin.audit.seal": "LogCheck check seal",
    "plugin.health.completeness": "Completeness completeness",
    "plugin.health.dead_letters": "Discarded discard discard_rule",
    "plugin.health.status": "Status",
    "plugin.health.status_reader": "read_status",
    "plugin.health.verify": "Verified verify",
    "plugin.host.progress": "LedgerProgress RebuildProgress",
    "plugin.metrics": "Metrics",
    "plugin.reading.history": "Metric",
    "plugin.reading.window": "MetricPoint Window WindowMetric",
    "plugin.rebuilds.listing": "VersionInfo list_versions",
    "plugin.rebuilds.rebuild": "Rebuilt rebuild",
    "plugin.rebuilds.swap": "abort swap undo",
    "plugin.rebuilds.totals": "RebuiltTotals rebuild_totals",
    "plugin.telemetry.totals": "read_totals",
    "plugin.summary.reader": "report",
    "plugin.summary.report": "Report",
    "plugin.transfer.abandon_import": "Abandoned abandon_import",
    "plugin.transfer.export_log": "export_log",
    "plugin.transfer.export_writer": "Exported",
    "plugin.transfer.import_built_in": "BuiltInImported import_built_in",
    "plugin.transfer.import_log": "Imported import_log",
    "plugin.worker.retention": "PrunedDay prune",
    "projections.rules.rule_set": "Derived",
    "projections.search.event": "Event",
    "projections.search.query": "EventCursor EventQuery",
    "projections.totals.read": "Total Totals",
}

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> Any:
        for module, names in _DEFINED_IN.items():
            if name in names.split():
                value = globals()[name] = getattr(import_module(f"chancy_metrics.{module}"), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
