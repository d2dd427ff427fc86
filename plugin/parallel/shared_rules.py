"""Rules by reference: a task imports the user's rules, as every worker of the app does."""

from __future__ import annotations

import pickle
from typing import NamedTuple

from chancy_metrics.events.error_kinds import in_words
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.projections.rules.rule_set import Rule, RuleSet, name_of

_WHAT_TO_DO = "rules that tasks apply are functions of a module that is installed wherever a task runs"


class SharedRules(NamedTuple):
    """A rule set as plain data.

    Attributes:
        rules: Name of each of the user's rules, and its pickle, which names its module.
    """

    built_in: int
    user: int
    rules: tuple[tuple[str, bytes], ...]

    def load(self) -> RuleSet:
        """Import the rules.

        Raises:
            MetricsLogError: One can't be imported here; the message names it.
        """
        return RuleSet(self.built_in, self.user, tuple(_load(name, data) for name, data in self.rules))


def share(rules: RuleSet) -> SharedRules:
    """Return *rules* as plain data.

    Raises:
        MetricsLogError: A rule is of no module that another process can import: a lambda, a function within another
            one, one of the script that runs; the message names it.
    """
    return SharedRules(rules.built_in, rules.user, tuple((name_of(rule), _refer(rule)) for rule in rules.rules))


def _refer(rule: Rule) -> bytes:
    try:
        data = pickle.dumps(rule)
    except Exception as error:  # whatever pickle, or the rule's own methods, raise
        raise MetricsLogError(
            f"rule {name_of(rule)!r} can't be sent to tasks ({in_words(error)}): {_WHAT_TO_DO}"
        ) from error
    if b"__main__" in data:
        raise MetricsLogError(
            f"rule {name_of(rule)!r} is of the script that runs, which tasks can't import: {_WHAT_TO_DO}"
        )
    return data


def _load(name: str, data: bytes) -> Rule:
    try:
        rule: Rule = pickle.loads(data)
    except Exception as error:  # whatever importing the user's module raises
        raise MetricsLogError(f"a task can't import rule {name!r} ({in_words(error)}): {_WHAT_TO_DO}") from error
    return rule
