"""`chancy-metrics rebuild`, `swap`, `undo` and `versions`: make and promote versions of the rollups."""

from __future__ import annotations

import sys

import click

from chancy_metrics.events.humanize import counted, moment, size, span
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.executors import open_sharing, sharing_options
from chancy_metrics.plugin.cli.output import FOUND_SOMETHING, Door
from chancy_metrics.plugin.cli.progress import show_rebuild
from chancy_metrics.plugin.cli.types import Duration
from chancy_metrics.plugin.host.options import DAY_S
from chancy_metrics.plugin.rebuilds.from_archives import Archives
from chancy_metrics.plugin.rebuilds.listing import VersionInfo, list_versions, read_left_out
from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt, rebuild
from chancy_metrics.plugin.rebuilds.swap import abort, swap, undo
from chancy_metrics.plugin.rebuilds.totals import RebuiltTotals, rebuild_totals

#: Differences printed as text.
_SHOWN = 20
_KEEP = click.option(
    "--keep",
    "keep_s",
    type=Duration(),
    default=f"{DAY_S}s",
    help="How long the replaced version is kept for `undo`; 1d by default.",
)


@command("rebuild")
@click.option(
    "--no-swap",
    is_flag=True,
    help="Leave the new version ready for `swap` instead of promoting it; exit with 3 if it differs.",
)
@click.option(
    "--throttle",
    "throttle_s",
    type=Duration(),
    help="Pause while events wait for the live version this much longer than a sync interval; half of one by default.",
)
@_KEEP
@click.option(
    "--status",
    "only_status",
    is_flag=True,
    help="Only show the rebuild in progress: its version, who runs it, and its position.",
)
@click.option("--abort", "only_abort", is_flag=True, help="Give up the version that is being rebuilt.")
@click.option(
    "--archive",
    metavar="DIR",
    help="Fold pruned days again from what `prune --archive` wrote to DIR, a folder or a URL such as s3://bucket/log.",
)
@click.option(
    "--totals",
    "only_totals",
    is_flag=True,
    help="Build what exporters read anew instead, by this app's rules: the only way to correct a total. With --no-swap "
    "only compare it, and exit with 3 if it differs.",
)
@sharing_options
@click.pass_obj
def rebuild_command(
    door: Door,
    only_totals: bool,
    archive: str | None,
    no_swap: bool,
    throttle_s: float | None,
    keep_s: float,
    only_status: bool,
    only_abort: bool,
    processes: int | None,
    dask: str | None,
    read_dsn: str | None,
) -> None:
    """Rebuild the rollups from the log into a new version, compare it with the live one, and promote it.

    Workers go on, and readers see the live version until then. After an interruption the same command resumes. Exits
    with 3 when events past the new version's position can't be folded, when a pruned day has no sound archive in
    --archive, or, with --no-swap, when the versions differ.
    """
    if only_status and only_abort:
        raise click.UsageError("--status and --abort exclude each other: leave one of them out")
    if only_totals and (only_status or only_abort or archive is not None):
        raise click.UsageError("--totals goes with --no-swap, --throttle and --processes, --dask or --read-dsn alone")
    chancy, _ = door.load()
    if only_status:
        unfinished = [
            one
            for one in door.run(list_versions(chancy))
            if one.status in ("collecting", "copying", "backfilling", "ready")
        ]
        door.answer(unfinished, lambda: _version_lines(unfinished) or ["nothing is being rebuilt"])
        return
    if only_abort:
        given_up = door.run(abort(chancy))
        text = "nothing is being rebuilt" if given_up is None else f"gave up version {given_up}"
        door.answer({"version": given_up}, lambda: [text])
        return
    if only_totals:
        with open_sharing(processes, dask, read_dsn) as (executor, source):
            made = door.run(
                rebuild_totals(
                    chancy,
                    swap=not no_swap,
                    throttle_s=throttle_s,
                    executor=executor,
                    read_dsn=source,
                    on_progress=show_rebuild(door, subject="generation"),
                )
            )
        door.answer(made, lambda: _rebuilt_totals_lines(made))
        if no_swap and made.different:
            sys.exit(FOUND_SOMETHING)
        return
    with open_sharing(processes, dask, read_dsn) as (executor, source):
        work = rebuild(
            chancy,
            swap=not no_swap,
            throttle_s=throttle_s,
            keep_s=keep_s,
            executor=executor,
            read_dsn=source,
            archive=archive,
            on_progress=show_rebuild(door),
        )
        done = door.run(work)
    if done.archives is not None:
        door.tell(*_not_taken(done.archives))
    door.answer(done, lambda: _rebuilt_lines(done))
    if (no_swap and done.different) or done.behind or (done.archives and done.archives.kept):
        sys.exit(FOUND_SOMETHING)


@command("swap")
@click.argument("version", type=click.IntRange(1), required=False)
@_KEEP
@click.pass_obj
def swap_command(door: Door, version: int | None, keep_s: float) -> None:
    """Promote VERSION, which is ready or on standby, so that readers see it; by default the one that is ready.

    Prints which events that version leaves out. One that leaves out more than the live version is promoted only by
    this command.
    """
    chancy, _ = door.load()
    taken = door.run(swap(chancy, version, keep_s=keep_s))
    leaves_out = door.run(read_left_out(chancy, taken)).sentence
    door.answer(
        {"version": taken, "leaves_out": leaves_out},
        lambda: [f"version {taken} is live", *([leaves_out] if leaves_out else [])],
    )


@command("undo")
@_KEEP
@click.pass_obj
def undo_command(door: Door, keep_s: float) -> None:
    """Promote the previously live version again, once it has caught up."""
    chancy, _ = door.load()
    taken = door.run(undo(chancy, keep_s=keep_s))
    door.answer({"version": taken}, lambda: [f"version {taken} is live again"])


@command("versions")
@click.pass_obj
def versions_command(door: Door) -> None:
    """List the versions of the rollups: live, on standby, and being rebuilt."""
    chancy, _ = door.load()
    found = door.run(list_versions(chancy))
    door.answer(found, lambda: _version_lines(found) or ["there is no version"])


def _version_lines(versions: list[VersionInfo]) -> list[str]:
    lines = []
    for one in versions:
        until = f", kept until {moment(one.kept_until)}" if one.kept_until else ""
        moved = f"{one.moved_by or 'nobody'}" + (f", {moment(one.moved_at)}" if one.moved_at else "")
        stored = f"{counted(one.rows, 'row')}, {counted(one.cells, 'cell')} of workers"
        lines += [
            f"version {one.version}: {one.status}{until}",
            f"  rules      {one.rules}{' of ' + ', '.join(one.rule_names) if one.rule_names else ''}",
            f"  position   {one.position:,} of {one.ordered_position:,}",
            f"  size       {stored}, about {size(one.size_bytes)}",
            f"  left out   {one.leaves_out.removeprefix(f'version {one.version} leaves out ') or 'nothing'}",
            f"  made by    {one.made_by}, {moment(one.made_at)}",
            f"  moved by   {moved}",
        ]
    return lines


def _not_taken(archives: Archives) -> list[str]:
    kept = [f"{one.day} keeps the baseline's figures: {one.why}" for one in archives.kept]
    return kept + archives.ignored


def _rebuilt_lines(done: Rebuilt) -> list[str]:
    lines = [f"- {one}" for one in done.differences[:_SHOWN]]
    if done.different > _SHOWN:
        lines.append(f"- and {done.different - _SHOWN:,} more; --json shows a thousand")
    if done.leaves_out:
        lines.append(done.leaves_out)
    rate = done.events / done.took_s if done.took_s else 0
    differ = f"{done.different:,} {'differs' if done.different == 1 else 'differ'}"
    lines.append(
        f"compared {counted(done.points, 'point')} at position {done.position:,}: "
        + (differ if done.different else "no difference")
        + (f"; {done.left_out_before}" if done.left_out_before else "")
    )
    if done.archives is not None:
        folded, kept = len(done.archives.folded), len(done.archives.kept)
        text = f"folded {counted(folded, 'pruned day')} again from {'its archive' if folded == 1 else 'their archives'}"
        keeps = "keeps" if kept == 1 else "keep"
        lines.append(text + (f"; {counted(kept, 'day')} without one {keeps} the baseline's figures" if kept else ""))
    lines.append(f"folded {counted(done.events, 'event')} in {span(done.took_s)}, {rate:,.0f} a second")
    lines.append(
        f"version {done.version} is live; version {done.replaced} is kept for `chancy-metrics undo`"
        if done.swapped
        else f"version {done.version} is ready for `chancy-metrics swap`; version {done.replaced} is live"
    )
    if done.behind:
        lines.append(done.behind)
    return lines


def _rebuilt_totals_lines(done: RebuiltTotals) -> list[str]:
    lines = [f"- {one}" for one in done.differences]
    if done.different > len(done.differences):
        lines.append(f"- and {done.different - len(done.differences):,} more")
    if done.leaves_out:
        lines.append(done.leaves_out)
    if done.series is not None:
        differ = f"{done.different:,} {'differs' if done.different == 1 else 'differ'}"
        lines.append(
            f"compared the totals of {done.series:,} series at position {done.position:,}: "
            + (differ if done.different else "no difference")
        )
    elif done.replaced is not None:
        lines.append(
            f"not compared with generation {done.replaced}, which has other rules or was never at one position"
        )
    rate = done.events / done.took_s if done.took_s else 0
    lines.append(f"folded {counted(done.events, 'event')} in {span(done.took_s)}, {rate:,.0f} a second")
    if not done.swapped:
        return [*lines, f"exporters still read generation {done.replaced} of the totals"]
    replaces = "" if done.replaced is None else f"; it replaces generation {done.replaced}"
    return [*lines, f"exporters read generation {done.generation} of the totals now{replaces}"]
