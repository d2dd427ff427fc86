"""`chancy-metrics rebuild`, `swap`, `undo` and `versions`: aggregates made again, and which of them readers see."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click
import msgspec

from .cli_app import FOUND_SOMETHING, Duration, load, run
from .filling import Progress
from .options import DAY_S
from .rebuild import Rebuilt, abort, rebuild, swap, undo
from .terminal import safe
from .versions import VersionInfo, list_versions, what_is_left_out

#: Seconds between lines where progress goes to a log.
_LINES_S = 10
#: Differences printed as text.
_SHOWN = 20
_KEEP = click.option(
    "--keep", "keep_s", type=Duration(), default=f"{DAY_S}s", help="How long the replaced version is kept; 1d."
)


@click.command("rebuild")
@click.option("--no-swap", is_flag=True, help="Leave the new version ready for `swap`; exit with 3 if it differs.")
@click.option(
    "--throttle",
    "throttle_s",
    type=Duration(),
    help="How much longer than a sync interval events may wait for the live version; half an interval by default.",
)
@_KEEP
@click.option("--status", "only_status", is_flag=True, help="Only show what is being rebuilt, by whom, how far.")
@click.option("--abort", "only_abort", is_flag=True, help="Give up the version that is being filled.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def rebuild_command(
    app: str,
    no_swap: bool,
    throttle_s: float | None,
    keep_s: float,
    only_status: bool,
    only_abort: bool,
    as_json: bool,
) -> None:
    """Make all aggregates again from the log, compare them with the living ones, and take their place.

    Workers go on, and readers see nothing but the result. Killed, the same command goes on where it stood. Exits with 3
    where events past the new version's position can't be folded, or with --no-swap where it differs.
    """
    chancy, _ = load(app)
    if only_status:
        unfinished = [one for one in run(list_versions(chancy)) if one.status in ("copying", "filling", "ready")]
        _show_versions(unfinished, as_json, "nothing is being rebuilt")
        return
    if only_abort:
        given_up = run(abort(chancy))
        click.echo("nothing is being rebuilt" if given_up is None else f"gave up version {given_up}")
        return
    done = run(rebuild(chancy, swap=not no_swap, throttle_s=throttle_s, keep_s=keep_s, on_progress=_printer()))
    click.echo(msgspec.json.encode(done).decode() if as_json else _text(done))
    if (no_swap and done.different) or done.behind:
        sys.exit(FOUND_SOMETHING)


@click.command("swap")
@click.argument("version", type=click.IntRange(1), required=False)
@_KEEP
@click.pass_obj
def swap_command(app: str, version: int | None, keep_s: float) -> None:
    """Let readers see a version that is ready (or rests); the one that is ready by default.

    Says what that version leaves out: one that leaves out more than the live one takes over only so.
    """
    chancy, _ = load(app)
    taken = run(swap(chancy, version, keep_s=keep_s))
    click.echo(f"version {taken} is live")
    if found := run(what_is_left_out(chancy, taken)):
        click.echo(f"{safe(found.sentence)}")


@click.command("undo")
@_KEEP
@click.pass_obj
def undo_command(app: str, keep_s: float) -> None:
    """Let the version that was live before catch up and take its place again."""
    chancy, _ = load(app)
    click.echo(f"version {run(undo(chancy, keep_s=keep_s))} is live again")


@click.command("versions")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.pass_obj
def versions_command(app: str, as_json: bool) -> None:
    """List the versions of the aggregates: the live one, those that rest, and what is being filled."""
    chancy, _ = load(app)
    _show_versions(run(list_versions(chancy)), as_json, "there is none")


def _show_versions(versions: list[VersionInfo], as_json: bool, none: str) -> None:
    if as_json:
        click.echo(msgspec.json.encode(versions).decode())
    elif not versions:
        click.echo(none)
    for one in versions if not as_json else ():
        until = f", kept until {one.kept_until:%Y-%m-%d %H:%M:%S %Z}" if one.kept_until else ""
        moved = f"{one.moved_by or 'nobody'}" + (f", {one.moved_at:%Y-%m-%d %H:%M:%S %Z}" if one.moved_at else "")
        click.echo(
            f"version {one.version}: {one.status}{until}\n"
            f"  rules      {one.rules}{' of ' + ', '.join(one.rule_names) if one.rule_names else ''}\n"
            f"  position   {one.position:,} of {one.ordered_position:,}\n"
            f"  size       {one.rows:,} rows, about {one.size_bytes / 1e6:,.1f} MB\n"
            f"  left out   {safe(one.leaves_out.removeprefix(f'version {one.version} leaves out ')) or 'nothing'}\n"
            f"  made by    {one.made_by}, {one.made_at:%Y-%m-%d %H:%M:%S %Z}\n"
            f"  moved by   {moved}"
        )


def _text(done: Rebuilt) -> str:
    lines = [f"- {one}" for one in done.differences[:_SHOWN]]
    if done.different > _SHOWN:
        lines.append(f"- and {done.different - _SHOWN:,} more; --json shows a thousand")
    if done.leaves_out:
        lines.append(safe(done.leaves_out))
    rate = done.events / done.seconds if done.seconds else 0
    lines.append(
        f"compared {done.points:,} points at position {done.position:,}: "
        + (f"{done.different:,} differ" if done.different else "no difference")
        + (f"; {safe(done.left_out_before)}" if done.left_out_before else "")
    )
    lines.append(f"folded {done.events:,} events in {done.seconds:.1f} s, {rate:,.0f} a second")
    lines.append(
        f"version {done.version} is live; version {done.replaced} is kept for `chancy-metrics undo`"
        if done.swapped
        else f"version {done.version} is ready for `chancy-metrics swap`; version {done.replaced} is live"
    )
    if done.behind:
        lines.append(safe(done.behind))
    return "\n".join(lines)


def _printer() -> Callable[[Progress], None]:
    """Return what shows progress on stderr: one line written over on a terminal, a line now and then in a log."""
    terminal = sys.stderr.isatty()
    last: list[float] = []
    phases: list[str] = []

    def show(progress: Progress) -> None:
        now = time.monotonic()
        changed = phases[-1:] != [progress.phase]
        if not changed and last and now - last[0] < (0.1 if terminal else _LINES_S):
            return
        last[:], phases[:] = [now], [progress.phase]
        left = "" if progress.remaining_s is None else f", {progress.remaining_s:.0f} s left"
        waits = ", gives way to the live version" if progress.waits else ""
        line = progress.note or (
            f"{progress.phase} version {progress.version}: {progress.events:,} of {progress.total_events:,} events, "
            f"{progress.events_per_s:,.0f} a second{left}{waits}"
        )
        if terminal:
            click.echo(f"\r\x1b[K{line}", nl=progress.phase == "swapping", err=True)
        else:
            click.echo(line, err=True)

    return show
