"""The errors a caller may act on; every message says what, which and what to do."""

from __future__ import annotations

from typing import Any

#: Longest description of damaged bytes, characters.
_MAX_FAULT_CHARS = 500

#: Messages of `SchemaMissing` where a row that the migration writes is missing.
NO_HEAD = "the metrics log has no head: run `chancy misc migrate`"
NO_LIVE_VERSION = "the metrics log has no live version: run `chancy misc migrate`"


class MetricsLogError(Exception):
    """Root of everything this package raises on purpose. Another process raises it with the same text."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Make it anew without its `__init__`, which would take a message for one of its parts."""
        return _made_again, (type(self), self.args, vars(self))


def _made_again(kind: type[MetricsLogError], args: tuple[Any, ...], attributes: dict[str, Any]) -> MetricsLogError:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(attributes)
    return error


class InvalidObservation(MetricsLogError, ValueError):
    """An observation broke a rule.

    Attributes:
        rule: Short name of the rule, as counted in `status`: "key", "value", "unit" or "reserved" (a metric that this
            plugin makes itself).
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class OutOfMemory(MetricsLogError):
    """Memory ran out for batches that the message names."""


class WrongMoment(MetricsLogError, ValueError):
    """A moment has no zone, or lies outside the years 1970 to 2199."""


class NotRecording(MetricsLogError, RuntimeError):
    """Nothing in this process appends what is recorded."""


class PluginShared(MetricsLogError, ValueError):
    """One plugin was put into two apps, and both are to record at the same time."""


class PrefixTooLong(MetricsLogError, ValueError):
    """PostgreSQL would cut names made with this prefix, so two prefixes could share tables."""


class Damaged(MetricsLogError):
    """Stored bytes are not what this package wrote.

    Attributes:
        kind: What they should be: "batch", "export", "delta ring", "sketch", "kept meta", …
        fault: What is wrong, as a sentence without its subject: "is no sketch: …".
        where: The subject: where the bytes lie; "it" if only the caller knows.
    """

    kind = "value"

    def __init__(self, fault: str, *, where: str = "", kind: str = "") -> None:
        fault = fault if len(fault) <= _MAX_FAULT_CHARS else f"{fault[:_MAX_FAULT_CHARS]}..."
        where = where or "it"
        super().__init__(f"{where} {fault}")
        self.kind = kind or self.kind
        self.fault = fault
        self.where = where


class DamagedBatch(Damaged):
    """The bytes of a batch are not what its producer wrote, or no batch at all."""

    kind = "batch"

    def __init__(self, fault: str) -> None:
        super().__init__(fault, where="the payload")


class DamagedExport(Damaged):
    """A file is no export, or was changed or cut short."""

    kind = "export"


class ImportRefused(MetricsLogError):
    """A file does not fit this database, or what is in it is not what was written."""


class UnknownCodec(MetricsLogError):
    """A batch was written by newer code than this."""


class StuckAt(MetricsLogError):
    """One batch can't be folded, and its error may not be its own; the message names it and says what to do."""


class SequenceConflict(MetricsLogError):
    """A batch id is taken by a batch with other bytes; appending was refused, nothing was dropped."""


class VersionRefused(MetricsLogError):
    """A version of the projection may not be made, folded or swapped by this code now."""


class LeavesOutMore(VersionRefused):
    """A version leaves out more than the live one, and its promotion was not asked for explicitly."""


class TotalsNotReady(MetricsLogError):
    """The totals are being built, and none are served until they are complete; the message says how far it is."""


class AlreadyRunning(MetricsLogError):
    """Another process does the same; the message says which, and since when."""


class WorkersLost(MetricsLogError):
    """The pool or cluster that runs the tasks of a command is gone; the same call resumes with another one."""


class TableLocked(MetricsLogError):
    """A table is locked so that it can't even be read; the message says by whom."""


class SchemaMissing(MetricsLogError):
    """The tables are missing, or older than this code."""
