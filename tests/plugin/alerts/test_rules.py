"""A file of rules is read as it is meant, or refused by a sentence that names the rule, the key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin.alerts.rules import Rule, quantile_of, read_rules
from tests.processes import ROOT

RULE = """
[[rule]]
name = "r"
series = "app:n"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text)
    return path


def test_the_example_has_five_rules() -> None:
    rules = {rule.name: rule for rule in read_rules(ROOT / "examples" / "alerts.toml")}

    assert len(rules) == 5
    assert rules["jobs fail"] == Rule(
        "jobs fail", "job:*:failed", ("job:*:failed", "job:*:succeeded"), None, 900, "above", 0.05, 300, 20
    )
    assert rules["a queue waits"][3:8] == (None, 0, "above", 300, 120)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rule = [", "is no TOML: "),
        ("\xff", "there is no"),
        ("", "there is no rule: write each in a table [[rule]]"),
        ("[rule]\nname = 'r'", "there is no rule: write each in a table [[rule]]"),
        (f"{RULE}above = 1\n[rules]", "there is no key 'rules': a file has rules only"),
        (f"{RULE}above = 1{RULE}above = 2", "two rules have the name 'r'"),
        (f"{RULE}abov = 1", "rule 'r', abov: there is no such key; do you mean 'above'? a rule has name, series, of, "),
        (f"{RULE}above = '1'", "rule 'r', above: Expected `float | null`, got `str`"),
        ("[[rule]]\nname = 'r'\nabove = 1", "rule 'r': a rule needs the key `series`"),
        ("[[rule]]\nseries = 'app:n'\nabove = 1", "rule 1: a rule needs the key `name`"),
        ("[[rule]]\nname = ' '\nseries = 'app:n'\nabove = 1", "rule 1, name: it is empty"),
        (RULE, "rule 'r', above: give one of above = NUMBER, below = NUMBER and absent = true; it has none of them"),
        (f"{RULE}above = 1\nbelow = 0", "it has above and below"),
        (f"{RULE}above = inf", "rule 'r', above: inf is no finite number"),
        (f"{RULE}above = 1\nfor = '2 minutes'", "rule 'r', for: '2 minutes' is not a duration of up to 7 d: write 30s"),
        (f"{RULE}above = 1\nfor = '8d'", "rule 'r', for: '8d' is not a duration of up to 7 d"),
        (f"{RULE}above = 1\nwindow = '90s'", "rule 'r', window: '90s' is not whole minutes"),
        (f"{RULE}above = 1\nmin_count = -1", "rule 'r', min_count: -1 is below 0"),
        (f"{RULE}above = 1\nof = []", "rule 'r', of: it is empty"),
        (f"{RULE}above = 1\nof = 'app:m'\nvalue = 'sum'", "rule 'r', value: a rule with `of` judges the share"),
        (f"{RULE}absent = true\nof = 'app:m'", "rule 'r', absent: a rule with `of` needs `above` or `below`"),
        (f"{RULE}absent = true\nvalue = 'max'", "rule 'r', value: a rule with `absent` has none"),
        (f"{RULE}above = 1\nof = 'app:*'", "rule 'r', of: 'app:*' has more * than 'app:n'"),
        (RULE.replace("app:n", "a*b*") + "above = 1", "rule 'r', series: 'a*b*' has more than one *"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_allowed(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    if text == "\xff":
        path.write_bytes(b"\xff")
        words = "is no TOML: "

    with pytest.raises(MetricsLogError) as refused:
        read_rules(path)

    assert words in str(refused.value)
    assert str(path) in str(refused.value)


def a_rule(**changes: object) -> Rule:
    return Rule("r", "app:n", (), None, 0, "above", 1.0, 0, 0)._replace(**changes)


@pytest.mark.parametrize(
    ("rule", "kind", "value"),
    [
        (a_rule(), "gauge", "max"),
        (a_rule(side="below"), "gauge", "min"),
        (a_rule(window_s=60), "counter", "sum"),
        (a_rule(value="rate"), "counter", "rate"),
        (a_rule(value="p99.9"), "histogram", "p99.9"),
        (a_rule(of=("app:m",)), "counter", "share"),
        (a_rule(side="absent"), "histogram", "points"),
    ],
)
def test_a_kind_has_a_value_of_its_own(rule: Rule, kind: str, value: str) -> None:
    assert rule.value_of(kind) == value


@pytest.mark.parametrize(
    ("rule", "kind", "words"),
    [
        (a_rule(), "counter", "rule 'r', window: a sum is of some time: give a window, such as window = '10m'"),
        (a_rule(value="p95"), "gauge", "rule 'r', value: 'p95' is nothing that a gauge has: max, min, avg, last"),
        (a_rule(), "histogram", "say which of it, max, min, avg, count, sum, rate or a quantile such as p95"),
        (a_rule(value="p100"), "histogram", "'p100' is nothing that a histogram has"),
        (a_rule(of=("app:m",)), "gauge", "rule 'r', of: 'app:n' is a gauge, and only counters have a share"),
    ],
)
def test_a_value_that_a_kind_lacks_is_refused(rule: Rule, kind: str, words: str) -> None:
    with pytest.raises(MetricsLogError) as refused:
        rule.value_of(kind)

    assert words in str(refused.value)


@given(st.integers(0, 99), st.none() | st.text("0123456789", min_size=1, max_size=3))
def test_a_quantile_is_the_number_that_is_written(whole: int, part: str | None) -> None:
    text = f"{whole}" if part is None else f"{whole}.{part}"

    numerator, denominator = quantile_of(f"p{text}") or (0, 0)

    assert numerator / denominator == pytest.approx(float(text) / 100)
