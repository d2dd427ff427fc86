"""Dashboards as Grafana's classic JSON, of panels and the queries of one data source."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from chancy_metrics.plugin.grafana.panels import PANELS, Panel, positions

#: Of the JSON's schema; Grafana migrates older ones when it loads them.
_SCHEMA = 39
#: The variable by which every query names its data source.
_SOURCE = "${datasource}"
_TYPES = {"stat": "stat", "lines": "timeseries", "bars": "timeseries"}

#: A part of the JSON.
Json = dict[str, object]


class Query(NamedTuple):
    """A query of a panel: what its data source needs beside `refId` and `datasource`."""

    target: Json
    is_table: bool = False


class Variable(NamedTuple):
    """A list of names to choose from, several or all.

    Attributes:
        query: In the form of the data source; *definition* is the same as text.
        all_value: What "All" is replaced by; Grafana does not quote it.
    """

    name: str
    label: str
    query: object
    definition: str
    all_value: str


class Annotation(NamedTuple):
    """Where marks come from: a query, and what else the data source reads of an annotation."""

    target: Query
    options: Json = {}  # noqa: RUF012 # never changed


class Dashboard(NamedTuple):
    """A dashboard over one data source.

    Attributes:
        plugin: Grafana's id of the kind of data source.
        uid: Of the data source that is chosen at first, whose name is *source*; begins the dashboard's own.
        queries: Panel -> its queries; panels without any are left out.
        installation: Which one it shows, if several in one database have dashboards of their own: Grafana replaces a
            dashboard by another one of the same uid.
    """

    title: str
    uid: str
    plugin: str
    source: str
    variables: tuple[Variable, ...]
    queries: dict[str, list[Query]]
    marks: Annotation
    installation: str = ""

    def to_json(self) -> Json:
        """Return the dashboard as Grafana imports it."""
        places = positions()
        of = self.installation
        return {
            "uid": f"{self.uid}-{sha256(of.encode()).hexdigest()[:8]}" if of else self.uid,
            "title": f"{self.title}, {of}" if of else self.title,
            "tags": ["chancy"],
            "schemaVersion": _SCHEMA,
            "editable": True,
            "graphTooltip": 1,
            "time": {"from": "now-6h", "to": "now"},
            "refresh": "1m",
            "timezone": "",
            "templating": {"list": [self._sources(), *map(self._variable, self.variables)]},
            "annotations": {"list": [self._annotation()]},
            "panels": [
                self._panel(number, panel, places[panel.name])
                for number, panel in enumerate(PANELS, 1)
                if panel.name in self.queries
            ],
        }

    @property
    def _reference(self) -> Json:
        return {"type": self.plugin, "uid": _SOURCE}

    def _target(self, query: Query, ref_id: str) -> Json:
        return {"refId": ref_id, "datasource": self._reference, **query.target}

    def _panel(self, number: int, panel: Panel, place: dict[str, int]) -> Json:
        queries = self.queries[panel.name]
        is_table = panel.shape != "stat" and queries[0].is_table
        return {
            "id": number,
            "type": "table" if is_table else _TYPES[panel.shape],
            "title": panel.title,
            "description": panel.about,
            "datasource": self._reference,
            "gridPos": place,
            "fieldConfig": {
                "defaults": {} if is_table else _defaults(panel, is_wide=len(queries) == 1),
                "overrides": [],
            },
            "options": _options(panel, is_table=is_table),
            "targets": [self._target(query, chr(ord("A") + index)) for index, query in enumerate(queries)],
        }

    def _sources(self) -> Json:
        return {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": self.plugin,
            "current": {"selected": True, "text": self.source, "value": self.uid},
            "options": [],
            "refresh": 1,
            "regex": "",
            "hide": 0,
            "multi": False,
            "includeAll": False,
        }

    def _variable(self, one: Variable) -> Json:
        return {
            "name": one.name,
            "label": one.label,
            "type": "query",
            "datasource": self._reference,
            "query": one.query,
            "definition": one.definition,
            "refresh": 2,
            "regex": "",
            "sort": 1,
            "hide": 0,
            "multi": True,
            "includeAll": True,
            "allValue": one.all_value,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "options": [],
        }

    def _annotation(self) -> Json:
        return {
            "name": "Marks",
            "datasource": self._reference,
            "enable": True,
            "hide": False,
            "iconColor": "blue",
            "target": self._target(self.marks.target, "Marks"),
            **self.marks.options,
        }


def _defaults(panel: Panel, *, is_wide: bool) -> Json:
    found: Json = {"unit": panel.unit, "min": 0}
    if panel.legend and is_wide:  # one column for each quantile, and a label that says of what
        found["displayName"] = f"${{__field.labels.{panel.legend}}} ${{__field.name}}"
    if panel.shape != "stat":
        bars = panel.shape == "bars"
        found["custom"] = {
            "drawStyle": "bars" if bars else "line",
            "fillOpacity": 60 if bars else 0,
            "lineWidth": 1,
            "showPoints": "never" if bars else "always",
            "pointSize": 4,
            "spanNulls": False,
            "stacking": {"mode": "normal" if bars else "none", "group": "A"},
        }
    return found


def _options(panel: Panel, *, is_table: bool) -> Json:
    if is_table:
        return {"showHeader": True}
    if panel.shape == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "none"}
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
