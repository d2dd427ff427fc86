"""Execute one statement, after a savepoint if asked for, in one trip to the server, without psycopg's cursors."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from psycopg import AsyncConnection, AsyncPipeline, OperationalError, errors
from psycopg.pq import ConnStatus, ExecStatus, Format, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait


class Statement(NamedTuple):
    """A statement with `$1` as placeholders, as psycopg's list of prepared statements knows it.

    Attributes:
        types: None: the statement casts its arguments.
    """

    query: bytes
    types: tuple[int, ...] = ()


def can_call(connection: AsyncConnection[Any]) -> bool:
    """Whether `call` works here: libpq has pipelines (14), a transaction is open, and psycopg has no pipeline open."""
    pgconn = connection.pgconn
    return (
        pgconn.transaction_status == TransactionStatus.INTRANS
        and AsyncPipeline.is_supported()
        and pgconn.pipeline_status == PipelineStatus.OFF
    )


async def call(
    connection: AsyncConnection[Any],
    statement: Statement,
    arguments: Sequence[bytes | None],
    *,
    savepoint: bytes | None = None,
) -> bytes:
    """Execute *statement* in the open transaction; return the first column of its only row, as text.

    A third of the CPU time that psycopg's cursors and pipeline take. It is prepared when psycopg would prepare it, and
    never where the connection forbids that.

    Args:
        arguments: In binary.
        savepoint: A statement that is executed before it.

    Raises:
        psycopg.Error: The first error of the two.
    """
    async with connection.lock:
        exchange = _call(connection, statement, arguments, savepoint)
        try:
            return await connection.wait(exchange)
        finally:
            exchange.close()  # and the connection, where a second cancellation has kept psycopg from taking the answers


def _call(
    connection: AsyncConnection[Any],
    statement: Statement,
    arguments: Sequence[bytes | None],
    savepoint: bytes | None,
) -> Generator[Wait, Ready | int, bytes]:
    pgconn = connection.pgconn
    how, name = yield from _how_prepared(connection, statement)
    is_new, is_prepared = (how.name == "SHOULD", how.name != "NO") if how is not None else (False, False)
    formats = _in_binary(len(arguments))
    pgconn.enter_pipeline_mode()
    try:
        if savepoint is not None:
            pgconn.send_query_params(savepoint, None)
        if is_new:
            pgconn.send_prepare(name, statement.query)
        if is_prepared:
            pgconn.send_query_prepared(name, arguments, formats, Format.TEXT)
        else:
            pgconn.send_query_params(statement.query, arguments, None, formats, Format.TEXT)
        pgconn.pipeline_sync()
        results = yield from _results(pgconn)
        pgconn.exit_pipeline_mode()
    except BaseException:
        pgconn.finish()  # the answers to these statements must not be taken for those to the next
        raise
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result, connection.info.encoding)
    if how is not None:
        _note_execution(connection, statement, how, name, results[-1])
    answer = results[-1].get_value(0, 0)
    assert answer is not None
    return answer


def _results(pgconn: PGconn) -> Generator[Wait, Ready | int, list[PGresult]]:
    """Send what is not sent yet, and return the results of the pipeline, but for that of its end."""
    while pgconn.flush():
        yield Wait.RW
        pgconn.consume_input()  # which takes what is there, if anything is
    results: list[PGresult] = []
    while True:
        yield Wait.R
        pgconn.consume_input()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                if pgconn.status == ConnStatus.BAD:
                    raise OperationalError(f"the connection is lost: {pgconn.error_message.decode(errors='replace')}")
            elif result.status == ExecStatus.PIPELINE_SYNC:
                return results
            else:
                results.append(result)


# psycopg's own list of prepared statements, although it is private: psycopg deallocates all of them, for one after a
# ROLLBACK, and to execute one that is gone would write an error into the server's log. Where a release of psycopg has
# another list, nothing is prepared.


def _how_prepared(
    connection: AsyncConnection[Any], statement: Statement
) -> Generator[Wait, Ready | int, tuple[Any, bytes]]:
    """Return psycopg's `Prepare` ("YES", "SHOULD" or "NO") and the statement's name; None where it has none."""
    try:
        prepared: Any = connection._prepared
        yield from prepared.maintain_gen(connection)
        how, name = prepared.get(statement)
    except (AttributeError, TypeError):
        return None, b""
    return how, name


def _note_execution(
    connection: AsyncConnection[Any], statement: Statement, how: Any, name: bytes, result: PGresult
) -> None:
    try:
        prepared: Any = connection._prepared
        key = prepared.maybe_add_to_cache(statement, how, name)
        if key is not None:
            prepared.validate(key, how, name, [result])
    except (AttributeError, TypeError):
        pass


@lru_cache
def _in_binary(arguments: int) -> list[Format]:
    return [Format.BINARY] * arguments
