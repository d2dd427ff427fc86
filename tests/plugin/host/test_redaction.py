"""No error says a password, however the DSN is broken."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import psycopg
import pytest
from chancy import Chancy
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Error
from psycopg.conninfo import conninfo_to_dict

from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.cli import app
from chancy_metrics.plugin.cli.main import main
from chancy_metrics.plugin.host.connection import connect
from chancy_metrics.plugin.host.redaction import without_password
from chancy_metrics.plugin.recording.job_hook import JobHook
from tests.factories import a_host, a_job

#: Nobody listens at port 1 of this host.
BROKEN = {
    "a percent sign": "postgresql://u:hunter%zztwo@127.0.0.1:1/d",
    "an encoded NUL": "postgresql://u:hunter%00two@127.0.0.1:1/d",
    "an at sign": "postgresql://u:hunter@two@127.0.0.1:1/d",
    "an at sign and a colon": "postgresql://u:hunter@two:hunter@127.0.0.1:1/d",
    "a slash": "postgresql://u:hunter/two@127.0.0.1:1/d",
    "a colon and a slash": "postgresql://u:1:hunter/two@127.0.0.1:1/d",
    "a space": "postgresql://u:hunter two@127.0.0.1:1/d",
    "a question mark": "postgresql://u:hunter?two@127.0.0.1:1/d",
    "a bracket": "postgresql://u:hunter@[two@127.0.0.1:1/d",
    "an open address": "postgresql://u:huntertwo@[::1/d",
    "a parameter": "postgresql://u@127.0.0.1:1/d?password=hunter%zztwo",
    "a parameter that is none": "postgresql://u:hunter?two@127.0.0.1:1/d?hunter",
    "a word of two": "host=127.0.0.1 port=1 password=hunter two user=u",
    "an option of it": "host=127.0.0.1 port=1 password=hunter two=2",
    "an open quote": "host=127.0.0.1 port=1 password='hunter two",
    "nothing": "postgresql://u:huntertwo@127.0.0.1:1/d",
}


@pytest.mark.parametrize("dsn", BROKEN.values(), ids=BROKEN)
async def test_an_error_of_a_connection_hides_the_password(dsn: str) -> None:
    with pytest.raises(Error) as raised:
        await connect(Chancy(dsn))

    assert "hunter" not in str(raised.value) and "two" not in str(raised.value)
    assert raised.value.__cause__ is None and raised.value.__suppress_context__
    assert len(str(raised.value)) > 10


@pytest.mark.parametrize("command", ["status", "verify", "fold", "versions", "audit events", "audit seal", "mark now"])
def test_no_command_prints_it(command: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    chancy = Chancy(BROKEN["a percent sign"], plugins=[Metrics()])
    monkeypatch.setattr(app, "import_string", lambda _: chancy)

    done = CliRunner().invoke(main, ["--app", "app", *command.split()])

    assert done.exit_code == 1
    assert "percent-encoded" in done.output
    assert "hunter" not in done.output and "zz" not in done.output + caplog.text


def test_an_app_that_connects_when_it_is_imported_tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> None:
        psycopg.connect(BROKEN["a percent sign"])

    monkeypatch.setattr(app, "import_string", fails)

    done = CliRunner().invoke(main, ["--app", "app", "status"])

    assert done.exit_code == 2
    assert "percent-encoded" in done.output and "hunter" not in done.output


@pytest.mark.parametrize("stream", ["sys.stderr", "sys.__stderr__"])
def test_what_the_pool_logs_and_the_app_prints_tells_nobody(
    stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also through a handler that was made with the process's own stderr, and from the pool's threads."""
    (tmp_path / "pooled.py").write_text(
        "import logging, sys\nfrom psycopg_pool import ConnectionPool, PoolTimeout\n"
        "from chancy import Chancy\nfrom chancy_metrics.plugin import Metrics\nimport threading\n"
        "told = threading.Event()\n"
        "class Telling(logging.StreamHandler):\n"
        "    def emit(self, record):\n        super().emit(record)\n        told.set()\n"
        f"handler = Telling({stream})\nlogging.getLogger('psycopg.pool').addHandler(handler)\n"
        f"dsn = {BROKEN['a percent sign']!r}\n"
        "pool = ConnectionPool(dsn, min_size=1, open=True, reconnect_timeout=0.1)\n"
        "assert told.wait(10)\npool.close()\n"
        "print('connecting to', dsn, 'with host=h password=huntertwo')\n"
        "chancy = Chancy(dsn, plugins=[Metrics()])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pooled", raising=False)

    done = CliRunner().invoke(main, ["--app", "pooled.chancy", "status"])

    said = done.output + capfd.readouterr().err
    assert done.exit_code == 1, said
    assert "error connecting in 'pool-" in said and 'percent-encoded token: "***"' in said and "password=***" in said
    assert "hunter" not in said and "two" not in said


@given(st.text("ab%@:/?# [&='", min_size=1, max_size=12))
def test_what_libpq_says_of_a_dsn_never_has_a_piece_of_its_password(password: str) -> None:
    secret = password.replace("a", "hunter").replace("b", "two")
    for dsn in (f"postgresql://u:{secret}@h:1/d", f"host=h password={secret}", f"postgresql://h/d?password={secret}"):
        try:
            conninfo_to_dict(dsn)
        except Error as error:
            shown = without_password(str(error), dsn)

            assert "hunter" not in shown and "two" not in shown, (str(error), shown)


def test_what_is_no_password_stays() -> None:
    text = 'connection to server at "db.example", port 5432 failed: FATAL: database "orders" does not exist'

    assert without_password(text, "postgresql://u:s3cret@db.example:5432/orders?options=a@b") == text


async def test_a_job_that_can_not_be_recorded_is_named_without_its_arguments(
    dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job(kwargs={"card": "4111"}, meta={"token": "hunter"})
    async with a_host(dsn) as (worker, plugin):
        hook: JobHook = plugin._session(worker).hook
        monkeypatch.setattr(hook, "_facts", lambda _: (_ for _ in ()).throw(ValueError("no")))
        with caplog.at_level(logging.WARNING):
            hook.take_saved(job)

    assert str(job.id) in caplog.text and job.func in caplog.text
    assert "4111" not in caplog.text and "hunter" not in caplog.text
