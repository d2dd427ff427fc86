"""Lines of JSON say the same in every encoding."""

from __future__ import annotations

import json

from chancy_metrics.plugin.host.escape import encodable, json_line


def test_only_lines_that_an_encoding_lacks_characters_of_are_escaped() -> None:
    values = ["caf\u00e9", "\u20ac \u00e9", "plain"]
    lines = "\n".join(map(json_line, values)) + "\n"

    for encoding, expected in (
        ("utf-8", lines),
        ("latin-1", '"caf\u00e9"\n"\\u20ac \\u00e9"\n"plain"\n'),
        ("ascii", '"caf\\u00e9"\n"\\u20ac \\u00e9"\n"plain"\n'),
    ):
        assert encodable(lines, encoding) == expected
        assert encodable(lines, encoding) == "".join(json_line(value, encoding) + "\n" for value in values)
        assert [json.loads(line) for line in encodable(lines, encoding).splitlines()] == values
