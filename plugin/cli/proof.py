"""`chancy-metrics audit seal`, `check`, `export` and `import`: prove that the log is unchanged, and move it."""

from __future__ import annotations

import sys
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import click
import msgspec

from chancy_metrics.events.chain import Seal, read_seals
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.humanize import counted, is_or_are, size, span
from chancy_metrics.plugin.audit.seal import LogCheck, check, seal
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.executors import open_sharing, sharing_options
from chancy_metrics.plugin.cli.output import FOUND_SOMETHING, Door
from chancy_metrics.plugin.cli.progress import show_ledger
from chancy_metrics.plugin.cli.types import Day
from chancy_metrics.plugin.transfer.abandon_import import abandon_import
from chancy_metrics.plugin.transfer.export_log import export_log
from chancy_metrics.plugin.transfer.import_log import import_log

#: Characters read at once as a line of a file of seals: a file without line ends is not read into memory.
_LINE_CHARS = 10_000


@command("seal")
@click.pass_obj
def seal_command(door: Door) -> None:
    """Print the hash of the ledger's end as one line, to keep where nobody can change it.

    `audit check --from-seal` tells later whether the log up to there is unchanged.
    """
    chancy, _ = door.load()
    line = str(door.run(seal(chancy)))
    door.answer({"seal": line}, lambda: [line])


@command("check")
@click.option(
    "--from-seal",
    "seal_files",
    type=click.File(encoding="utf-8", errors="replace"),
    multiple=True,
    help="A file of seals, one per line (- for stdin), whose hashes the log must have.",
)
@sharing_options
@click.pass_obj
def check_command(
    door: Door, seal_files: tuple[TextIO, ...], processes: int | None, dask: str | None, read_dsn: str | None
) -> None:
    """Hash the whole log again and name the first position that was changed.

    No worker and no reader waits for it. Exits with 3 when anything is wrong.
    """
    chancy, _ = door.load()
    seals: list[Seal] = []
    try:
        for file in seal_files:
            seals += read_seals(iter(partial(file.readline, _LINE_CHARS), ""), file.name)
    except MetricsLogError as error:
        raise click.BadParameter(str(error), param_hint="--from-seal") from error
    with open_sharing(processes, dask, read_dsn) as (executor, source):
        work = check(chancy, seals=seals, executor=executor, read_dsn=source, on_progress=show_ledger(door, "checked"))
        done = door.run(work)
    door.answer(_as_objects(done), lambda: _checked_lines(done, len(seals)))
    if done.found:
        sys.exit(FOUND_SOMETHING)


@command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--day", type=Day(), help="Only the batches of this UTC day of the log.")
@click.pass_obj
def export_command(door: Door, file: Path, day: date | None) -> None:
    """Write the log to FILE (- for stdout): every batch byte for byte, the ledger and its hashes.

    FILE appears once it is complete. No worker and no reader waits for it.
    """
    chancy, _ = door.load()
    to_stdout = str(file) == "-"
    work = export_log(
        chancy,
        None if to_stdout else file,
        day=day,
        stream=door.data() if to_stdout else None,
        on_progress=show_ledger(door, "exported"),
    )
    done = door.run(work)
    text = (
        f"{counted(done.batches, 'batch')} with {counted(done.events, 'event')}, "
        f"{counted(done.positions - done.batches, 'position')} without, {size(done.size_bytes)} in {span(done.took_s)}"
    )
    door.answer(msgspec.structs.asdict(done) | {"seal": str(done.seal)}, lambda: [text, str(done.seal)])
    if done.lost:
        door.tell(f"{is_or_are(done.lost, 'batch')} not in the log: `chancy-metrics audit check` says which")
        sys.exit(FOUND_SOMETHING)


@command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--abandon", is_flag=True, help="Undo an unfinished import; without FILE.")
@click.pass_obj
def import_command(door: Door, file: Path | None, abandon: bool) -> None:
    """Import the log in FILE into this database, whose own log must be empty.

    Positions and hashes are kept, and each batch is checked before it is stored. After an interruption the same command
    resumes, and --abandon empties the log again. Then `chancy-metrics fold` or `rebuild` makes the rollups.
    """
    if abandon == (file is not None):
        raise click.UsageError("give the FILE to import, or --abandon to undo an unfinished import")
    chancy, _ = door.load()
    if file is None:
        gone = door.run(abandon_import(chancy))
        taken = (
            f"{counted(gone.batches, 'batch')} with {counted(gone.events, 'event')} at "
            f"{counted(gone.positions, 'position')}"
        )
        door.answer(gone, lambda: [f"undone: {taken}; the ledger is empty again"])
        return
    done = door.run(import_log(chancy, file, on_progress=show_ledger(door, "imported")))
    since = f", resumed at position {done.since:,}" if done.since else ""
    text = (
        f"{counted(done.batches, 'batch')} with {counted(done.events, 'event')} in {span(done.took_s)}{since}: "
        f"the ledger ends at position {done.position:,}; `chancy-metrics fold` makes the rollups"
    )
    door.answer(done, lambda: [text])


def _checked_lines(done: LogCheck, seals: int) -> list[str]:
    lines = [f"note: {note}" for note in done.notes]
    if done.findings:
        lines.append(f"WRONG at {done.findings[0].where} ({done.findings[0].check}): {done.findings[0].text}")
        lines += [f"also {one}" for one in done.findings[1:]]
    if done.found > len(done.findings):
        lines.append(f"and {done.found - len(done.findings):,} more")
    rate = done.events / done.took_s if done.took_s else 0
    unsealed = "" if seals else "; whether the end was cut off or all was hashed anew, which only a seal shows"
    lines.append(f"not looked at: the rollups, which `chancy-metrics verify` compares with the log{unsealed}")
    lines.append(
        f"{counted(done.batches, 'batch')} with {counted(done.events, 'event')} hashed again up to position "
        f"{done.position:,} in {span(done.took_s)} ({rate:,.0f} events/s), {counted(done.carried, 'position')} of "
        "pruned days: "
        + _checked_verdict(done, seals)
        + (f"; {done.seals} of {counted(seals, 'seal')} {'holds' if seals == 1 else 'hold'}" if seals else "")
    )
    return lines


def _checked_verdict(done: LogCheck, seals: int) -> str:
    """Say what the check has found."""
    if done.found:
        return f"{is_or_are(done.found, 'thing')} wrong"
    if not done.batches:
        return "no batch is left in the log to check" if done.carried else "there is nothing in the log to check yet"
    return "nothing was changed" if seals else "every batch matches its hash"


def _as_objects(done: LogCheck) -> dict[str, Any]:
    return msgspec.structs.asdict(done) | {"findings": [one._asdict() for one in done.findings]}
