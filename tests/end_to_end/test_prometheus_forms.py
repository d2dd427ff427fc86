"""What a real Prometheus makes of both forms: names and labels, quantiles against exact ones, and no reset."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from chancy_metrics.plugin.telemetry.exposition import OPENMETRICS, PROTOBUF, accepted_form
from chancy_metrics.plugin.telemetry.families import Family, families_of
from chancy_metrics.projections.totals.read import Total
from tests.factories import a_total, some_totals
from tests.plugin.telemetry.test_exposition import held_families
from tests.scraping import Prometheus, nearest_rank, scraping, write_form

QUANTILES = (0.5, 0.95, 0.99)
#: How many are added between two scrapes.
ADDED = 2_000
UPDATES = "chancy_jobs_total{func='app.mail',state='succeeded'}"


class Target:
    """A page with families for whoever scrapes it, and the forms in which it was asked for them."""

    def __init__(self) -> None:
        self.families: list[Family] = []
        self.forms: set[str] = set()
        self.url = ""


@contextmanager
def a_target() -> Iterator[Target]:
    target = Target()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            form = accepted_form(self.headers["Accept"])
            target.forms.add(form)
            body = write_form(target.families, form)
            self.send_response(200)
            self.send_header("Content-Type", form)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        target.url = f"http://127.0.0.1:{server.server_port}/metrics"
        try:
            yield target
        finally:
            server.shutdown()
            thread.join()


class Scraped(NamedTuple):
    """A page, and the servers that scrape it, with native histograms and without."""

    target: Target
    servers: dict[bool, Prometheus]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        a_target() as target,
        scraping(folder / "native", target.url, native=True) as native,
        scraping(folder / "classic", target.url, native=False) as classic,
    ):
        yield Scraped(target, {True: native, False: classic})


def took(values: list[float]) -> list[Total]:
    return [
        a_total("job:app.mail:execution_time", kind="histogram", unit="seconds", values=values),
        a_total("app:shift", kind="histogram", values=[one - 0.5 for one in values]),
        a_total("job:app.mail:succeeded", len(values)),
    ]


@pytest.fixture(scope="module")
def between(scraped: Scraped) -> list[float]:
    """The values that were recorded between the first scrape of them and the last one."""
    chance = random.Random(7)
    before = [chance.lognormvariate(3, 1) for _ in range(500)]
    between = [chance.lognormvariate(-1, 1.2) for _ in range(ADDED)]
    for values in (before, before + between):
        scraped.target.families = families_of(some_totals(*took(values)))
        for server in scraped.servers.values():
            server.until(UPDATES, len(values))
    # An increase is extrapolated by half an interval before the first scrape and 1.1 after the last one: 8.4 % of 19.
    for server in scraped.servers.values():
        server.until(f"count_over_time({UPDATES}[1m]) >= bool 20")
    return between


def test_native_quantiles_of_an_increase_are_exact_to_a_hundredth(scraped: Scraped, between: list[float]) -> None:
    exact = [nearest_rank(between, q) for q in QUANTILES]

    for name, shift in (("chancy_job_execution_seconds", 0.0), ("app_shift", 0.5)):
        shown = [scraped.servers[True].value(f"histogram_quantile({q}, increase({name}[1m]))") for q in QUANTILES]
        assert shown == pytest.approx([one - shift for one in exact], rel=0.01), name


def test_classic_quantiles_are_within_a_power_of_two(scraped: Scraped, between: list[float]) -> None:
    name = "chancy_job_execution_seconds_bucket"
    shown = [
        scraped.servers[False].value(f"histogram_quantile({q}, sum by (le) (increase({name}[1m])))") for q in QUANTILES
    ]

    exact = [nearest_rank(between, q) for q in QUANTILES]
    assert all(one / 2 <= value <= one * 2 for value, one in zip(shown, exact, strict=True)), (shown, exact)


def test_an_increase_is_what_was_added_and_nothing_is_reset(scraped: Scraped, between: list[float]) -> None:
    for native, server in scraped.servers.items():
        count = "histogram_count(chancy_job_execution_seconds)" if native else "chancy_job_execution_seconds_count"

        assert server.value(f"max_over_time({UPDATES}[1m]) - min_over_time({UPDATES}[1m])") == ADDED
        assert server.value(f"increase({UPDATES}[1m])") == pytest.approx(ADDED, rel=0.1)  # Prometheus extrapolates
        assert server.value(f"sum(resets({UPDATES}[1m])) + sum(resets(({count})[1m:200ms]))") == 0


def test_both_forms_are_asked_for(scraped: Scraped, between: list[float]) -> None:
    assert scraped.target.forms == {OPENMETRICS, PROTOBUF}


@pytest.mark.parametrize("native", [True, False])
def test_whatever_the_names_are_nothing_is_lost(scraped: Scraped, native: bool) -> None:
    families, server = held_families(), scraped.servers[native]
    text = write_form(families, OPENMETRICS).decode()
    held = {
        (one.name, *sorted((k, v) for k, v in one.labels.items() if v)): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if not (native and (family.type == "histogram" or one.name.endswith("_created")))
    }

    scraped.target.families = families
    server.until("count(chancy_queue_depth)")
    found = server.query("{__name__=~'.+',__name__!~'up|scrape_.*'}")

    stored = {
        (dict(labels)["__name__"], *(pair for pair in labels if pair[0] != "__name__")): value
        for labels, value in found.items()
    }
    histograms = {family.name for family in families if family.kind == "histogram"}
    assert {name: value for name, value in stored.items() if name[0] not in histograms or not native} == held
    assert not native or {name[0] for name in stored} >= histograms
