"""The roles that docs/roles.md grants rights to, of a test's own."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from tests.processes import ROOT

ROLES = ("recorder", "auditor", "reader", "scaler", "exporter", "worker", "owner")


def read_grants() -> str:
    """Return the SQL of the document."""
    blocks = re.findall(
        r"<!-- tests/end_to_end/test_roles.py runs these -->\n```sql\n(.*?)```",
        (ROOT / "docs" / "roles.md").read_text(),
        re.S,
    )
    assert len(blocks) == len(ROLES)
    return "".join(blocks)


@contextmanager
def made_roles(dsn: str) -> Iterator[tuple[str, ...]]:
    """Make the roles under names of their own, in the order of `ROLES`: roles belong to the whole server."""
    names = tuple(f"{role}_{uuid.uuid4().hex[:8]}" for role in ROLES)
    grants = read_grants()
    with psycopg.connect(dsn, autocommit=True) as owner:
        for role, name in zip(ROLES, names, strict=True):
            owner.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
            grants = grants.replace(f"TO {role};", f"TO {name};").replace(f"GRANT {role} TO", f"GRANT {name} TO")
        owner.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC")  # as careful owners do
        owner.execute(grants.encode())
        yield names
        for name in names:
            owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def as_role(dsn: str, role: str) -> str:
    return dsn.replace("postgres@", f"{role}@")
