"""Each code block of the documents is run, or parsed by what it is for.

A comment before a block says what the block alone does not:

- `<!-- continues -->`: this Python goes on where the page's previous Python block ended.
- `<!-- given: x: int = 1; y: str -->`: statements before this Python, which the reader has in some other way.
- `<!-- DuckDB -->`: this SQL is not PostgreSQL's.
- `<!-- tests/test_x.py runs this -->`: that test runs this SQL, which can't run in a transaction, from the page.

Every Python block is given `chancy` and `metrics`.
"""

from __future__ import annotations

import ast
import configparser
import importlib.util
import itertools
import json
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import duckdb
import pytest
import yaml

from chancy_metrics.events.database import Connection
from tests.command_lines import GROUPS, parse
from tests.processes import ROOT
from tests.roles import ROLES

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "bench" / "README.md",
    ROOT / "CONTRIBUTING.md",
]
#: Name -> the line that gives it to each Python block that does not make it.
GIVEN = {
    "Any": "from typing import Any",
    "os": "import os",
    "Chancy": "from chancy import Chancy",
    "Metrics": "from chancy_metrics.plugin import Metrics",
    "metrics": "metrics = Metrics()",
    "chancy": "chancy = Chancy('postgresql://localhost/app', plugins=[metrics])",
}
#: What command lines may call besides ours: nothing looks at their arguments.
OTHER_PROGRAMS = {".", "bash", "cat", "cd", "cp", "createdb", "crontab", "curl", "dask", "docker", "echo", "export"}
OTHER_PROGRAMS |= {"find", "git", "grep", "gunicorn", "head", "jq", "kill", "ls", "mkdir", "pg_dump", "pg_restore"}
OTHER_PROGRAMS |= {"pip", "prometheus", "psql", "pytest", "rm", "ssh-keygen", "sudo", "systemctl", "uvicorn", "wait"}
#: What stands for a job's id.
PLACEHOLDERS = dict.fromkeys(("JOB_ID", "0199d2f0-…"), "0199d2f0-0000-7000-8000-000000000000")
#: Between backticks, and no command: the first line of an export.
NO_COMMANDS = {"chancy-metrics export 1"}
#: Pages whose tables hold measured figures, with what measures them.
MEASURED = {"performance.md", "scale.md"}
MEASURES = r"`(?:make bench|python -m bench|python -m tests)\b"


class Block(NamedTuple):
    """A fenced block, without its indentation; *comment* is what is said of it in the line before."""

    page: Path
    line: int
    language: str
    text: str
    comment: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    fence = re.compile(r"(?:^ *<!-- ([^\n]*) -->\n)?^ *```([^\n]*)\n(.*?)^ *```$", re.M | re.S)
    text = page.read_text()
    for found in fence.finditer(text):
        comment, language, inside = found.groups()
        yield Block(page, text.count("\n", 0, found.start(2)) + 1, language, textwrap.dedent(inside), comment or "")


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def read_ini(text: str) -> None:
    configparser.ConfigParser(interpolation=None).read_string(text)


def read_shell(text: str) -> None:
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, capture_output=True)


def read_diff(text: str) -> None:
    assert [line for line in text.splitlines() if line[:1] not in {"+", "-", "@", " ", ""}] == []


READERS: dict[str, Callable[[str], object]] = {
    "diff": read_diff,
    "ini": read_ini,
    "json": json.loads,
    "sh": read_shell,
    "toml": tomllib.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
}
#: `text` is what a program printed, or is read by people; those in braces are Sphinx's own.
KNOWN = {*READERS, "python", "sql", "console", "text", "{toctree}", "{eval-rst}"}


def test_the_language_of_every_block_is_known() -> None:
    assert len(BLOCKS) > 50
    assert [f"{block} is {block.language!r}" for block in BLOCKS if block.language not in KNOWN] == []


@pytest.mark.parametrize("block", of(*READERS), ids=str)
def test_data_and_settings_are_read(block: Block) -> None:
    READERS[block.language](block.text)


# -- Python ----------------------------------------------------------------------------------------


def modules() -> Iterator[tuple[Block, str]]:
    """The source of each Python block with what comes before it; one that awaits becomes the body of a coroutine."""
    before: tuple[Path, str] | None = None
    for block in of("python"):
        given = block.comment.removeprefix("given: ").replace("; ", "\n") if block.comment.startswith("given: ") else ""
        text = f"{given}\n{block.text}"
        if block.comment == "continues":
            assert before is not None and before[0] == block.page, f"{block} continues nothing"
            text = before[1] + block.text
        before = (block.page, text)
        tree = compile(text, str(block), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if any(awaits(statement) for statement in tree.body):
            text = "async def block() -> None:\n" + textwrap.indent(text, "    ")
        own = set(made_by(tree))
        yield block, "\n".join([line for name, line in GIVEN.items() if name not in own] + [text])


def made_by(tree: ast.Module) -> Iterator[str]:
    """Names of functions and classes of a module, and names that it imports."""
    for one in tree.body:
        if isinstance(one, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in one.names)
        elif isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield one.name


def awaits(node: ast.AST) -> bool:
    """Whether *node* awaits outside of functions of its own."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return False
    if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
        return True
    return any(awaits(child) for child in ast.iter_child_nodes(node))


def check_types(folder: Path, sources: dict[str, str]) -> list[str]:
    """Return mypy's errors in modules of these names, by one run."""
    package = folder / "typed" / "chancy_metrics"  # laid out like the installed package, as for `make lint`
    package.mkdir(parents=True)
    for part in ("package/__init__.py", "events", "projections", "plugin", "migrations"):
        (package / Path(part).name).symlink_to(ROOT / part)
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    (folder / "mypy.ini").write_text(
        "[mypy]\ncheck_untyped_defs = true\nstrict_optional = false\n"
        "ignore_missing_imports = true\nfollow_imports = silent\n"
        "[mypy-chancy.*]\nfollow_untyped_imports = true\n"
    )
    options = ["--no-error-summary", "--hide-error-context", f"--cache-dir={ROOT / '.mypy_cache' / 'blocks'}"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *(f"{name}.py" for name in sources)],
        cwd=folder,
        env={"MYPYPATH": str(folder / "typed"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if ": error:" in line]


@pytest.mark.slow  # without mypy's cache it is most of a minute
def test_python_has_the_types_that_it_says(tmp_path: Path) -> None:
    found = list(modules())
    names = [f"{block.page.stem.replace('-', '_').lower()}_{block.line}" for block, _ in found]

    assert check_types(tmp_path, dict(zip(names, (source for _, source in found), strict=True))) == []


def test_a_wrong_name_in_python_is_found(tmp_path: Path) -> None:
    wrong = (
        "from chancy_metrics.plugin import verfy",
        "metrics.record_gague('a', 1)",
        "metrics.sync_record_gauge('a')",
    )

    found = check_types(tmp_path, {f"wrong_{i}": "\n".join([*GIVEN.values(), line]) for i, line in enumerate(wrong)})

    assert sorted(error.partition(".py:")[0] for error in found) == ["wrong_0", "wrong_1", "wrong_2"]


# -- SQL -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", of("sql"), ids=str)
async def test_sql_runs_on_a_migrated_database(block: Block, connection: Connection) -> None:
    if block.comment == "DuckDB":
        assert duckdb.extract_statements(block.text)
        return
    if "SUBSCRIPTION" in block.text:
        [test] = re.findall(r"^(tests/\S+) runs this$", block.comment)
        assert block.page.name in (ROOT / test).read_text()
        return
    async with connection.transaction(force_rollback=True):
        for role in ROLES:
            await connection.execute(f"CREATE ROLE {role}".encode())
        await connection.execute(block.text.encode())


# -- Command lines -----------------------------------------------------------------------------------


def command_lines() -> Iterator[tuple[Block, str]]:
    """Lines of console blocks after their prompt, with those that continue them."""
    for block in of("console"):
        for found in re.finditer(r"^\$ (.*\\\n(?: .*\n)*|.*)", block.text, re.M):
            yield block, found[1].replace("\\\n", " ")


def commands_in(line: str) -> Iterator[list[str]]:
    """The commands of a line, each as its words: without comments, redirections, and variables that are set."""
    words: list[str] = []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    tokens = iter([*lexer, ";"])
    for token in tokens:
        if token in ("|", "||", ";", "&", "&&", "|&", "&;"):
            yield list(itertools.dropwhile(re.compile(r"\w+=").match, words))
            words = []
        elif set(token) <= set("<>&"):
            words = words[:-1] if words and words[-1] in ("1", "2") else words
            next(tokens)
        else:
            words.append(token)


def wrong_with(words: list[str]) -> str | None:
    program = words[0].rpartition("/")[2]
    if program in GROUPS:
        try:
            parse([PLACEHOLDERS.get(word, word) for word in words])
        except click.exceptions.Exit:  # --help
            return None
        except click.BadParameter as error:
            # Files are the reader's, and prose names a command without its arguments.
            is_of_a_file = error.param is not None and isinstance(error.param.type, click.Path | click.File)
            return None if is_of_a_file or isinstance(error, click.MissingParameter) else error.format_message()
        except click.ClickException as error:
            return error.format_message()
    elif program == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
        return next((f"no target {word}" for word in words[1:] if "=" not in word and word not in targets), None)
    elif program in ("python", "python3") and words[1:2] == ["-m"]:
        return None if importlib.util.find_spec(words[2]) else f"no module {words[2]}"
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = re.findall(r"\w+", "".join(re.findall(r"chancy-metrics\[(.*?)\]", " ".join(words))))
        return next((f"no extra {name}" for name in asked if name not in extras), None)
    elif program not in {*OTHER_PROGRAMS, "python", "python3"}:
        return f"unknown program {program}"
    return None


def problems(line: str) -> list[str]:
    """What is wrong with a command line. Brackets stand around what may be left out: it is tried with and without."""
    forms = {re.sub(r"\[(-[^]]*)\]", r"\1", line), re.sub(r"\[-[^]]*\]", "", line)}
    return [
        f"{line}: {wrong}" for form in forms for words in commands_in(form) if words and (wrong := wrong_with(words))
    ]


def test_every_command_line_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT / "examples")
    found = [f"{block}: {wrong}" for block, line in command_lines() for wrong in problems(line)]

    assert len(list(command_lines())) > 50
    assert found == []


def inline_commands(page: Path) -> list[str]:
    """Commands of ours between backticks in a page's prose, where nothing is left out of them."""
    prose = re.sub(r"^( *)```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)
    found = re.findall(r"`((?:chancy-metrics|make|python -m) [^`]+)`", prose)
    return [line for line in found if "…" not in line and line not in NO_COMMANDS]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_prose_are_ones(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "examples")

    assert [wrong for line in inline_commands(page) for wrong in problems(line)] == []


def test_the_commands_of_the_examples_are_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "examples")
    pages = sorted((ROOT / "examples").glob("*/README.md"))
    lines = [line for page in pages for line in re.findall(r"^    (\S.*)", page.read_text(), re.M)]

    assert len(lines) >= len(pages) > 5
    assert [wrong for line in lines for wrong in problems(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        "chancy-metrics --app x verfy",
        "chancy-metrics --app x verify [--jsn]",
        "chancy-metrics --app x status | chancy-metrics --app x fold now",
        "chancy --app x misc migrate --too 1",
        "make tea",
        "python -m bench.speed",
        "pip install 'chancy-metrics[pages]'",
        "chancy-metric --app x status",
    ],
)
def test_a_wrong_command_line_is_found(line: str) -> None:
    assert len(problems(line)) >= 1


# -- Figures -----------------------------------------------------------------------------------------


def tables_without_a_command(text: str) -> list[str]:
    """First lines of tables of figures in whose section, or one that holds it, nothing is named that measures them.

    The page's own introduction speaks of the tables in it alone.
    """
    missing = []
    named: dict[int, bool] = {}
    for section in re.split(r"^(?=#)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), flags=re.M):
        level = len(section) - len(section.lstrip("#"))
        named = {above: is_named for above, is_named in named.items() if 1 < above < level}
        named[level] = bool(re.search(MEASURES, section))
        tables = re.findall(r"(?:^ *\|.*\n)+", section, re.M)
        if not any(named.values()):
            missing += [table.partition("\n")[0] for table in tables if has_figures(table)]
    return missing


def has_figures(table: str) -> bool:
    """Whether most cells beside the first column hold a number."""
    cells = [cell for row in table.splitlines()[2:] for cell in re.split(r"(?<!\\)\|", row)[2:-1] if cell.strip()]
    return sum(bool(re.search(r"\d", cell)) for cell in cells) > len(cells) / 2


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_every_table_of_figures_names_what_measures_it(name: str) -> None:
    assert tables_without_a_command((ROOT / "docs" / name).read_text()) == []


def test_a_table_without_a_command_is_found() -> None:
    table = "| {0} | |\n|---|---|\n| it | {0} s |\n"
    sections = ["# A\n`make bench`\n", "## B\n`python -m bench.x`\n", "### C\n", "## D\n"]

    assert tables_without_a_command("".join(one + table.format(i) for i, one in enumerate(sections))) == ["| 3 | |"]
