"""`chancy-metrics backtest`: replay alert rules over the stored points, and print when each would have fired."""

from __future__ import annotations

from datetime import datetime

import click

from chancy_metrics.events.humanize import counted, moment, span
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.plugin.alerts.backtest import Backtest, backtest
from chancy_metrics.plugin.alerts.outcome import RuleFiring, RuleReplay
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.output import Door
from chancy_metrics.plugin.cli.types import Moment
from chancy_metrics.plugin.cli.verify import percent

#: Firings of one rule that are printed: the longest ones.
_SHOWN = 5


@command("backtest")
@click.argument("rules", metavar="RULES.toml", type=click.Path())
@click.option(
    "--since",
    type=Moment(),
    default="7d",
    show_default=True,
    help="Start of the time to replay: 2026-03-10T12:00Z, or 24h or 7d for that long ago.",
)
@click.pass_obj
def backtest_command(door: Door, rules: str, since: datetime) -> None:
    """Replay alert rules over the stored points: when each would have fired, how long, and how bad it was.

    docs/alerts.md says how to write rules. The last hour is judged by minutes, older times by the finest buckets that
    are kept. Exits with 0 whether rules fired or not.
    """
    chancy, _ = door.load()
    found = door.run(backtest(chancy, rules, since=since))
    door.answer(found, lambda: backtest_lines(found))


def backtest_lines(found: Backtest) -> list[str]:
    """What `backtest` prints."""
    total_s = sum(one.buckets * RESOLUTIONS[one.resolution] for one in found.judged)
    recorded = 1 - _unknown_s(found) / total_s if total_s else 0.0
    return [*_time_lines(found), *(line for rule in found.rules for line in ["", *_rule_lines(rule, recorded)])]


def _time_lines(found: Backtest) -> list[str]:
    if not found.judged:
        return [f"nothing is stored since {moment(found.asked_since)}, so nothing could be judged"]
    grains = [f"by the {one.resolution} until {_short(one.until)}" for one in found.judged[:-1]]
    lines = [
        f"{_short(found.since)} to {_short(found.until)} UTC",
        f"judged {', '.join([*grains, f'by the {found.judged[-1].resolution} to the end'])}",
    ]
    if found.since > found.asked_since:
        lines.append(f"older points than {_short(found.since)} are not kept")
    if unknown_s := _unknown_s(found):
        lines.append(f"the log holds nothing of {span(unknown_s)} of it: no rule fires or resolves there")
    return lines


def _unknown_s(found: Backtest) -> int:
    return sum(one.unknown * RESOLUTIONS[one.resolution] for one in found.judged)


def _rule_lines(rule: RuleReplay, recorded: float) -> list[str]:
    """Return the lines of a rule; *recorded* is the part of the time in which the log holds anything."""
    lines = [f"{rule.name}: {_verdict(rule)}", f"  {rule.condition}; {counted(rule.series, 'series')}"]
    if rule.worst is not None and rule.usual is not None and rule.rare is not None:
        side = "above" if rule.rare >= rule.usual else "below"
        lines.append(
            f"  usual {_value(rule, rule.usual)}, {side} {_value(rule, rule.rare)} for 1 % of the time, "
            f"worst {_value(rule, rule.worst)} at {moment(rule.worst_at)}{_of(rule, rule.worst_key)}"
        )
    if rule.known < recorded - 0.001 and rule.series:
        lines.append(
            f"  judged in {percent(rule.known)} of the time: in the rest it was not sampled, or is known in part"
        )
    longest = sorted(rule.firings, key=lambda one: -one.firing_s)[:_SHOWN]
    lines += [f"  {_firing(rule, one)}" for one in sorted(longest, key=lambda one: (one.since, one.key))]
    if len(rule.firings) > _SHOWN:
        lines.append(f"  and {counted(len(rule.firings) - _SHOWN, 'shorter firing')}: --json has all")
    return lines


def _verdict(rule: RuleReplay) -> str:
    if not rule.series:
        return "no series matches yet"
    if not rule.firings:
        return "never fired" if rule.known else "could not be judged"
    total = f"fired {_times(len(rule.firings))}, {span(rule.firing_s)} in all"
    return total + (f", the longest {span(rule.longest_s)}" if len(rule.firings) > 1 else "")


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def _firing(rule: RuleReplay, one: RuleFiring) -> str:
    parts = [f"{moment(one.since)}  {span(one.firing_s)}{'' if one.until else ', and still fires'}"]
    if one.worst is not None:
        parts.append(f"worst {_value(rule, one.worst)}")
    if one.unknown_s:
        parts.append(f"{span(one.unknown_s)} of it unknown")
    return ", ".join(parts) + _of(rule, one.key) + _grain(one.width_s)


def _grain(width_s: int) -> str:
    """Say by which buckets a firing was found, unless by the finest."""
    name = next(name for name, width in RESOLUTIONS.items() if width == width_s)
    return "" if name == next(iter(RESOLUTIONS)) else f" (by the {name})"


def _of(rule: RuleReplay, key: str | None) -> str:
    return f", {key}" if rule.series > 1 and key else ""


def _value(rule: RuleReplay, value: float) -> str:
    if rule.is_share:
        return percent(value)
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _short(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
