"""Read the exception that ended an attempt of a job from the text that its executor kept.

Chancy keeps no exception, only a formatted traceback, and each kind of executor makes another one: a thread and a
coroutine leave a chain of stacks whose last one is the job's; a child process sends its stack as the quoted cause of
an exception without one; a sub-interpreter puts a wrapper in front that quotes the stack. A message may look like any
of it, so the text is read by its structure: stacks are indented, and the job's begins in the executor.
"""

from __future__ import annotations

import re

MAX_ERROR_CHARS = 200

_CAUSE = "The above exception was the direct cause of the following exception:"
_LINK = re.compile(f"\n\n(?:{_CAUSE}|During handling of the above exception, another exception occurred:)\n\n")
#: What a process pool puts in front of the exception: the child's text in quotes of one of two kinds.
_REMOTE = re.compile(r"concurrent\.futures\.process\._RemoteTraceback: \n(\"\"\"|''')\n")
#: "  + " and "  | " are the margin of an exception group.
_HEADER = re.compile(r"(?:  \+ Exception Group )?Traceback \(most recent call last\):\n")
#: The first line of a text that is not indented: what stands above it is the stack.
_FIRST_LINE = re.compile(r"^(?:  \| )?(\S.*)$", re.MULTILINE)
_FRAME = r'(?:  \| )?  File "[^\n]*", line \d+, in '
#: A stack that begins where an executor calls the job: no cause of the job's error does.
_IN_EXECUTOR = re.compile(
    _HEADER.pattern
    + rf"(?:{_FRAME}_?job_wrapper\n"
    + r'|(?:  \| )?  File "[^\n]*[\\/]chancy[\\/]executors[\\/]\w+\.py", line \d+, in push\n'
    + r'|(?:  \| )?  File "[^\n]*[\\/]concurrent[\\/]futures[\\/]thread\.py", line \d+, in run\n'
    + rf"(?:(?!{_FRAME})[^\n]*\n)*"
    + r'(?:  \| )?  File "[^\n]*(?:", line \d+, in job_wrapper|[\\/]interpreter\.py", line \d+, in run)\n)'
)
_NAME = re.compile(r"[^\W\d][\w.<>]*(?=:|$)")
_CANCELLED = "asyncio.exceptions.CancelledError"
#: The end of the message of a sub-interpreter's wrapper, which says what it wraps before it.
_UNCAUGHT = "\n\nUncaught in the interpreter:\n"


def job_error(text: str, *, with_message: bool) -> str:
    """Return the name of the exception that *text* says ended the attempt, the last of its chain; "" if none.

    Args:
        with_message: Return what it says too, up to the end of its first line.
    """
    line = _error_line(text)
    if _is_wrapper(line, text):
        line = line.partition(": ")[2]
    if not with_message:
        line = _name(line)
    # What a batch can't hold would cost all of it.
    kept = line.replace("\x00", "\ufffd").encode(errors="replace").decode()
    return kept.rstrip()[:MAX_ERROR_CHARS]


def _error_line(text: str) -> str:
    remote = _REMOTE.match(text)
    if remote:
        return _first_line(_behind_quotes(text, remote), 0)
    for part in _likeliest(_LINK.split(text)):
        line = _below_stack(part)
        if line:
            return line
    line = _first_line(text, 0)
    named = _NAME.match(line)
    # Without a stack only a name before a message is an error: an exception that was never raised.
    return line if named and line.startswith(": ", named.end()) else ""


def _behind_quotes(text: str, remote: re.Match[str]) -> str:
    """Return what follows the child's text, which ends with the same unless pickling changed it."""
    last = text
    for end in re.finditer(f"\n{remote[1]}\n\n{_CAUSE}\n\n", text):
        last = text[end.end() :]
        if text[: end.start() + 1].endswith(last):
            break
    return last


def _likeliest(parts: list[str]) -> list[str]:
    """Return the parts of a chain, that of the job's error first."""
    if len(parts) == 1:
        return parts
    ours = [number for number, part in enumerate(parts) if _IN_EXECUTOR.match(part)]
    if not ours:
        return parts[::-1]
    number = ours[0]
    # The time limit of a coroutine turns the executor's own cancellation into another error.
    if number + 1 in ours and _name(_below_stack(parts[number])) == _CANCELLED:
        number += 1
    return [parts[number]]


def _below_stack(part: str) -> str:
    header = _HEADER.match(part)
    return _first_line(part, header.end()) if header else ""


def _first_line(text: str, start: int) -> str:
    found = _FIRST_LINE.search(text, start)
    return found[1] if found else ""


def _name(line: str) -> str:
    return line.partition(": ")[0].removesuffix(":")


def _is_wrapper(line: str, text: str) -> bool:
    return _name(line).endswith("ExecutionFailed") and _UNCAUGHT in text
