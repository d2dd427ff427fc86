"""`chancy-metrics audit seal`, `check`, `export`, `import`: proof that the facts are the facts, here or elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import TextIO, TypeVar

import click
import msgspec

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.seal import Seal, read_seals

from .cli_app import FOUND_SOMETHING, Day, load, run
from .sealing import Checked, Progress, check, seal
from .transfer import abandon_import, export_log, import_log

#: Seconds between lines where progress goes to a log.
_LINES_S = 10
#: Of a line in a file of seals, read at once: a file without a line's end is not read into memory.
_LINE_CHARS = 10_000

T = TypeVar("T")


@click.command("seal")
@click.pass_obj
def seal_command(app: str) -> None:
    """Print the end of the order as one line, to keep where nobody can change it.

    `audit check --from-seal` tells later whether the history up to there is still the same.
    """
    chancy, _ = load(app)
    click.echo(str(run(seal(chancy))))


@click.command("check")
@click.option(
    "--from-seal",
    "seal_files",
    type=click.File(),
    multiple=True,
    help="A file of seals, one a line (- for stdin): the log must have the hashes they name.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def check_command(app: str, seal_files: tuple[TextIO, ...], as_json: bool) -> None:
    """Hash the whole log again and name the first position that is not as it was written.

    Nobody waits for it. Exits with 3 when anything is wrong.
    """
    chancy, _ = load(app)
    seals: list[Seal] = []
    try:
        for file in seal_files:
            seals += read_seals(iter(partial(file.readline, _LINE_CHARS), ""), file.name)
    except (MetricsLogError, UnicodeError) as error:
        raise click.BadParameter(str(error), param_hint="--from-seal") from error
    done = run(check(chancy, seals=seals, on_progress=_printer("checked")))
    click.echo(_checked_json(done) if as_json else _checked_text(done, len(seals)))
    if done.found:
        sys.exit(FOUND_SOMETHING)


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--day", type=Day(), help="Only the batches of this UTC day of the log.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def export_command(app: str, file: Path, day: date | None, as_json: bool) -> None:
    """Write the log to FILE (- for stdout): every batch byte for byte, the order and its chain.

    FILE appears when it is complete. Nobody waits for it.
    """
    chancy, _ = load(app)
    to_stdout = str(file) == "-"
    work = export_log(
        chancy,
        None if to_stdout else file,
        day=day,
        stream=sys.stdout.buffer if to_stdout else None,
        on_progress=_printer("exported"),
    )
    done = _with_files(lambda: run(work))
    if as_json:
        text = msgspec.json.encode(msgspec.structs.asdict(done) | {"seal": str(done.seal)}).decode()
    else:
        text = (
            f"{done.batches:,} batches with {done.events:,} events, {done.places - done.batches:,} places without, "
            f"{done.size_bytes / 1e6:,.1f} MB in {done.seconds:,.1f} s\n{done.seal}"
        )
    click.echo(text, err=to_stdout)
    if done.lost:
        click.echo(f"{done.lost:,} batches are not in the log: `chancy-metrics audit check` names them", err=True)
        sys.exit(FOUND_SOMETHING)


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--abandon", is_flag=True, help="Take back what an unfinished import has brought; without FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def import_command(app: str, file: Path | None, abandon: bool, as_json: bool) -> None:
    """Take the log in FILE into this database, whose own log is empty.

    Positions and hashes stay what they were, and each batch is checked before it is kept. Stopped at any moment, the
    same command goes on, and with --abandon it leaves the log as empty as it was. Then `chancy-metrics fold` or
    `rebuild` makes the numbers.
    """
    if abandon == (file is not None):
        raise click.UsageError("give the FILE to import, or --abandon to take an unfinished import back")
    chancy, _ = load(app)
    if file is None:
        gone = run(abandon_import(chancy))
        taken = f"{gone.batches:,} batches with {gone.events:,} events at {gone.positions:,} positions"
        text = f"{taken} are taken back: the order is empty again"
        click.echo(msgspec.json.encode(gone).decode() if as_json else text)
        return
    done = _with_files(lambda: run(import_log(chancy, file, on_progress=_printer("imported"))))
    if as_json:
        click.echo(msgspec.json.encode(done).decode())
    else:
        since = f", going on from position {done.since:,}" if done.since else ""
        click.echo(
            f"{done.batches:,} batches with {done.events:,} events in {done.seconds:,.1f} s{since}: "
            f"the order ends at position {done.position:,}; `chancy-metrics fold` makes the numbers"
        )


def _with_files(work: Callable[[], T]) -> T:
    try:
        return work()
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _checked_text(done: Checked, seals: int) -> str:
    lines = [f"note: {note}" for note in done.notes]
    if done.findings:
        lines.append(f"WRONG at {done.findings[0].where} ({done.findings[0].check}): {done.findings[0].text}")
        lines += [f"also {one}" for one in done.findings[1:]]
    if done.found > len(done.findings):
        lines.append(f"and {done.found - len(done.findings):,} more")
    rate = done.events / done.took_s if done.took_s else 0
    lines.append("not looked at: the numbers made of the log, which `chancy-metrics verify` compares with it")
    lines.append(
        f"{done.batches:,} batches with {done.events:,} events hashed again up to position {done.position:,} in "
        f"{done.took_s:,.1f} s ({rate:,.0f} events/s), {done.carried:,} places of days that left the log: "
        + _checked_verdict(done)
        + (f"; {done.seals} of {seals} seals hold" if seals else "")
    )
    return "\n".join(lines)


def _checked_verdict(done: Checked) -> str:
    """What the check has found, of what it looks at."""
    if done.found:
        return f"{done.found:,} things are wrong"
    if not done.batches:
        return "no batch is left in the log to check" if done.carried else "there is nothing in the log to check yet"
    return "everything is as it was written"


def _checked_json(done: Checked) -> str:
    findings = [one._asdict() for one in done.findings]
    return msgspec.json.encode(msgspec.structs.asdict(done) | {"findings": findings}).decode()


def _printer(did: str) -> Callable[[Progress], None]:
    """Return what shows progress on stderr: one line written over on a terminal, a line now and then in a log."""
    terminal = sys.stderr.isatty()
    shown = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal shown
        now = time.monotonic()
        ends = progress.position >= progress.until
        if now - shown < (0.1 if terminal else _LINES_S) and not (terminal and ends):
            return
        shown = now
        line = (
            f"{did} {progress.events:,} events, position {progress.position:,} of {progress.until:,}, "
            f"{progress.events_per_s:,.0f} events/s"
        )
        click.echo(f"\r\x1b[K{line}" if terminal else line, nl=not terminal or ends, err=True)

    return show
