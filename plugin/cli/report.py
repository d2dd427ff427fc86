"""`chancy-metrics report`: print what happened, what is wrong, and whether the numbers can be trusted, in 25 lines."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime, timedelta
from unicodedata import east_asian_width

import click

from chancy_metrics.events.humanize import counted, moment, span
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.output import FOUND_SOMETHING, Door
from chancy_metrics.plugin.cli.types import Moment
from chancy_metrics.plugin.cli.verify import percent
from chancy_metrics.plugin.host.escape import safe
from chancy_metrics.plugin.summary.reader import report
from chancy_metrics.plugin.summary.report import Change, FunctionFailures, QueueState, Report, SlowFunction
from chancy_metrics.plugin.summary.usual import Usual
from chancy_metrics.projections.rules.measured import MOST_JOBS

#: Most lines of a report, and columns of a line.
LINES, COLUMNS = 25, 120
_LABEL = 10
#: Columns of a name: the middle of a longer one is left out.
_NAME = 40
#: Lines of one problem, and of each list in a report.
_PROBLEM_LINES, _QUEUES, _FUNCTIONS, _SLOW, _CHANGES = 3, 3, 2, 3, 3
#: Lines of all problems together, and the parts that yield lines to them, the first one first.
_VERDICT, _YIELDING = 11, ("slowest", "changed", "waiting", "time")
#: Marks in the line of marks.
_MARKS = 3
#: Seconds after which a sample is told with its age.
_AGED_S = 120

_UNITS = {"jobs": "jobs done", "failure_share": "failures", "run_time_p95": "run p95", "wait_time_p95": "wait p95"}
#: Kind of what is missing -> its noun, and what follows on that.
_MISSING = {
    "left_out_batches": ("batch", "left out"),
    "failing_rules": ("rule", "failing"),
    "missing_batches": ("batch", "missing"),
    "set_aside": ("entry", "set aside"),
    "lost": ("event", "lost"),
    "uncertain": ("event", "uncertain"),
    "in_memory": ("event", "held in memory"),
    "unclean_ends": ("session", "ended uncleanly"),
    "dropped_ever": ("observation", "ever dropped in memory"),
    "dropped_job_updates_ever": ("job update", "ever dropped in memory"),
}


@command("report")
@click.option(
    "--since",
    type=Moment(),
    default="1h",
    show_default=True,
    help="Start of the time: 2026-03-10T12:00Z, or 15m, 1h or 7d for that long ago.",
)
@click.pass_obj
def report_command(door: Door, since: datetime) -> None:
    """Say what happened, against the same hours of the days before, and what is wrong, in 25 lines.

    Exits with 3 when something is wrong: docs/alerts.md says what counts.
    """
    chancy, _ = door.load()
    found = door.run(report(chancy, since=since))
    door.answer(found, lambda: report_lines(found))
    if found.problems:
        sys.exit(FOUND_SOMETHING)


def report_lines(found: Report) -> list[str]:
    """What `report` prints: at most `LINES` lines of `COLUMNS` columns."""
    parts = {
        "time": _time(found),
        "flow": _flow(found),
        "waiting": _waiting(found),
        "failures": _failures(found),
        "slowest": _slowest(found),
        "changed": _changes(found),
        "numbers": _numbers(found),
    }
    verdict = _verdict(found)
    for label in _YIELDING:  # to what is wrong
        while len(parts[label]) > 1 and len(verdict) + sum(map(len, parts.values())) > LINES:
            parts[label].pop()
    lines = [_labelled(label, line, not number) for label, some in parts.items() for number, line in enumerate(some)]
    return [fit(safe(line)) for line in [*verdict, *lines]]


def _verdict(found: Report) -> list[str]:
    """Say how many things are wrong, and what, in up to `_VERDICT` lines."""
    if not found.problems:
        return ["nothing is wrong, as far as was looked" if _is_judged(found) else "nothing to judge yet"]
    lines = ["1 THING IS WRONG" if len(found.problems) == 1 else f"{len(found.problems)} THINGS ARE WRONG"]
    for number, problem in enumerate(found.problems):
        left = len(found.problems) - number
        wrapped = (textwrap.wrap(safe(problem.sentence), COLUMNS - 4) or [""])[:_PROBLEM_LINES]
        if len(lines) + len(wrapped) + (left > 1) > _VERDICT:
            return [*lines, f"  and {left:,} more: `chancy-metrics report --json` has all"]
        lines += [f"{'  !' if not line else '   '} {text}" for line, text in enumerate(wrapped)]
    return lines


def _is_judged(found: Report) -> bool:
    return found.began_at is not None


def _labelled(label: str, line: str, is_first: bool) -> str:
    return f"{label if is_first else '':<{_LABEL}}{line}"


def _time(found: Report) -> list[str]:
    standby = ", as far as this standby has replayed" if found.replayed_at is not None else ""
    day = "" if found.since.date() == found.until.date() else f"{found.until:%Y-%m-%d} "
    lines = [f"{found.since:%Y-%m-%d %H:%M} to {day}{found.until:%H:%M:%S} UTC{standby}"]
    if found.days:
        some = f"the same hours of {counted(found.days, 'day')} before"
        long = found.until - found.since > timedelta(days=1, hours=1)
        lines[0] += f"; usual is what {'as long a time whole weeks before' if long else some} had"
    if found.unknown_s >= 60 and found.began_at is not None:
        before_s = (found.began_at - found.since).total_seconds()
        when = [f"before {found.began_at:%H:%M}"] if before_s >= 60 else []
        if (gaps_s := found.unknown_s - before_s if when else found.unknown_s) >= 60:
            when.append(f"in {span(gaps_s)} of it")
        lines.append(f"nothing was recorded {' and '.join(when)}")
    if found.marks:
        lines.append(f"marked: {'; '.join(f'{one.at:%H:%M:%S} {one.text}' for one in found.marks[-_MARKS:])}")
    return lines


def _flow(found: Report) -> list[str]:
    if found.first_numbers_s is not None:
        return [f"nothing is folded yet: first numbers within {span(found.first_numbers_s)} of the first job"]
    flow = found.flow
    retried = f", {flow.retried:,} attempts retried" if flow.retried else ""
    rate = f"{flow.per_min:,.0f}" if flow.per_min >= 100 else f"{flow.per_min:,.1f}"
    workers = found.waiting.workers
    by = "" if workers is None else f"; {counted(workers, 'worker')} active"
    return [f"{counted(flow.done, 'job')} done, {rate}/min{retried}{_usual(flow.usual, _whole)}{by}"]


def _waiting(found: Report) -> list[str]:
    waiting = found.waiting
    if not waiting.sampled:
        since = "" if waiting.sampled_at is None else f" since {moment(waiting.sampled_at)}"
        return [f"not sampled{since}: nothing is known of the queues' depth"]
    waits = [one for one in waiting.queues if one.due or one.oldest_wait_s]
    lines = [_queue(one) for one in waits[:_QUEUES]]
    rest = waits[_QUEUES:]
    if not lines:
        lines = [f"nothing is due in {counted(len(waiting.queues), 'queue')}"]
    if waiting.sampled_at is not None and (age_s := (found.until - waiting.sampled_at).total_seconds()) > _AGED_S:
        lines.insert(0, f"as of {span(age_s)} ago, when queues and workers were last sampled")
    if rest:
        due = sum(one.due for one in rest)
        lines.append(f"{counted(due, 'job')} due in {counted(len(rest), 'more queue')}")
    return lines


def _queue(one: QueueState) -> str:
    parts = [f"{'at least ' if one.due >= MOST_JOBS else ''}{one.due:,} due"]
    if one.oldest_wait_s is not None:
        parts.append(f"the oldest for {span(one.oldest_wait_s)}")
    others = {"running": one.running, "scheduled": one.scheduled}
    parts += [f"{count:,} {state}" for state, count in others.items() if count]
    usual = _usual(one.usual_worst_s, _seconds, "longest wait")
    return f"{name(one.queue)}  {', '.join(parts)}{usual}"


def _failures(found: Report) -> list[str]:
    failures = found.failures
    if not found.flow.done:
        lines = ["no job is done, so none failed"] if not failures.newest else ["no job failed for the last time"]
    elif not failures.failed:
        lines = [f"none of {counted(found.flow.done, 'job')}{_usual(failures.usual, percent)}"]
    else:
        lines = [
            f"{failures.failed:,} of {counted(found.flow.done, 'job')}, {percent(failures.share or 0)}"
            f"{_usual(failures.usual, percent)}"
        ]
    told = {one.name for one in found.problems if one.kind == "failures"}
    others = [one for one in failures.functions if one.func not in told]
    lines += [_function(one) for one in others[:_FUNCTIONS]]
    if more := others[_FUNCTIONS:]:
        lines[-1] += f"; {sum(one.failed for one in more):,} of {counted(len(more), 'other function')}"
    if (newest := failures.newest) is not None:
        retried = ", to be retried" if newest.state == "retrying" else ""
        day = "" if newest.at.date() == found.until.date() else f"{newest.at:%Y-%m-%d} "
        before, after = f"newest at {day}{newest.at:%H:%M:%S}: ", f", {name(newest.func)}{retried}"
        room = COLUMNS - _LABEL - _columns(before + after)
        lines.append(f"{before}{fit(safe(newest.error or 'no error kept'), room)}{after}")
        lines.append(f"`chancy-metrics audit job {newest.job_id}` shows it attempt by attempt")
    return lines


def _function(one: FunctionFailures) -> str:
    return f"{name(one.func)}  {one.failed:,} of {one.done:,}, {percent(one.share)}{_usual(one.usual, percent)}"


def _slowest(found: Report) -> list[str]:
    lines = [_slow(one) for one in found.slowest[:_SLOW]]
    shown = {one.func for one in found.slowest[:_SLOW]}
    if found.busiest and (busiest := found.busiest[0]).func not in shown:
        lines = [*lines[: _SLOW - 1], f"{_slow(busiest)} (most run time)"]
    if not lines and found.flow.done:  # imported from Chancy's own plugin
        lines = ["unknown: what is recorded of run times has no quantiles"]
    return lines or ["nothing ran"]


def _slow(one: SlowFunction) -> str:
    parts = [f"p95 {_seconds(one.p95_s)}", counted(one.runs, "run"), f"{_seconds(one.run_time_s)} in all"]
    return f"{name(one.func)}  {', '.join(parts)}{_usual(one.usual, _seconds)}"


def _changes(found: Report) -> list[str]:
    if not found.days:
        return ["unknown: nothing of the days before can be compared"]
    lines = [_change(one) for one in found.changes[:_CHANGES]]
    if more := len(found.changes) - _CHANGES:
        lines[-1:] = [f"{lines[-1]}; and {counted(more, 'more change')}"] if lines and more > 0 else lines[-1:]
    return lines or ["nothing is far from what is usual"]


def _change(one: Change) -> str:
    form = {"jobs": _whole, "failure_share": percent}.get(one.what, _seconds)
    times = one.now / one.usual.median if one.usual.median else None
    ratio = "" if not times else f" ({times:,.1f}x)" if times >= 1 else f" (1/{1 / times:,.1f})"
    return f"{name(one.name)}  {_UNITS[one.what]} {form(one.now)}{ratio}{_usual(one.usual, form)}"


def _numbers(found: Report) -> list[str]:
    numbers = found.numbers
    kinds = {kind: (counted(count, _MISSING[kind][0]), _MISSING[kind][1]) for kind, count in numbers.missing.items()}
    missing = ", ".join(" ".join(one) for one in kinds.values())
    late = f"; {_seconds(numbers.lag_s)} behind" if numbers.lag_s >= 1 else ""
    lines = [f"{f'missing or late: {missing}' if missing else 'nothing recorded is known to be missing'}{late}"]
    if numbers.verified_at is None:
        lines.append("not compared with the log: `chancy-metrics verify` does it")
    else:
        found_open = f"{counted(numbers.open_faults, 'fault')} open" if numbers.open_faults else "nothing found is open"
        share = percent(numbers.verified_share)
        lines.append(f"{share} of them compared with the log, last {moment(numbers.verified_at)}; {found_open}")
    return lines


def _usual(before: Usual | None, form: object, what: str = "") -> str:
    if before is None or not callable(form):
        return ""
    least, most = form(before.least), form(before.most)
    many = f" ({least} to {most})" if least != most else ""
    return f"; usual {what}{' ' if what else ''}{form(before.median)}{many}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _seconds(value: float) -> str:
    return span(float(f"{value:.3g}"))


def name(text: str) -> str:
    """Return a name, escaped, of `_NAME` columns at most: the middle of a longer one is left out."""
    shown = safe(text)
    if _columns(shown) <= _NAME:
        return shown
    return f"{fit(shown, _NAME // 2)}{_end(shown, _NAME - _NAME // 2)}"


def fit(text: str, columns: int = COLUMNS) -> str:
    """Cut *text* where it has more columns; the last one is then an ellipsis."""
    if _columns(text) <= columns:
        return text
    kept, used = 0, 0
    for letter in text:
        used += _columns(letter)
        if used > columns - 1:
            break
        kept += 1
    return f"{text[:kept]}…"


def _end(text: str, columns: int) -> str:
    """Return as much of the end of *text* as has so many columns."""
    return fit(text[::-1], columns + 1)[-2::-1]


def _columns(text: Sequence[str]) -> int:
    """Return how many columns a terminal takes for *text*: two for wide letters."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)
