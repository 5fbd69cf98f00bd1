"""The ledger is the only writer: no other module changes its tables."""

import ast
from pathlib import Path

import pytest

import tinybrain
from tinybrain.payments.schema import metadata

SOURCE = Path(tinybrain.__file__).parent
DEPLOYMENTS = SOURCE.parent / "deployments"
PAYMENTS = SOURCE / "payments"
WRITERS = (PAYMENTS / "ledger", PAYMENTS / "migrations")
WRITES = {"insert", "update", "delete"}
TABLES = {table.name for table in metadata.sorted_tables}


def writes(source):
    """Lines that make an INSERT, UPDATE or DELETE of a table, in SQLAlchemy or in words."""
    return [node.lineno for node in ast.walk(ast.parse(source)) if is_write(node)]


def is_write(node):
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").startswith("sqlalchemy") and any(
            name.name in WRITES for name in node.names
        )
    if isinstance(node, ast.Attribute):
        target = node.value
        name = getattr(target, "attr", getattr(target, "id", None))
        return node.attr in WRITES and name in TABLES | {"sa", "sqlalchemy"}
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        words = node.value.lower().replace('"', "").split()
        return (words[:1] == ["update"] and words[1:2] != [] and words[1] in TABLES) or (
            words[:1] in (["insert"], ["delete"]) and words[2:3] != [] and words[2] in TABLES
        )
    return False


def test_no_module_but_the_ledger_and_its_migrations_writes_a_table():
    modules = [*SOURCE.rglob("*.py"), *DEPLOYMENTS.rglob("*.py")]
    outside = [path for path in modules if not any(path.is_relative_to(w) for w in WRITERS)]
    assert len(outside) > 50
    assert {str(path): lines for path in outside if (lines := writes(path.read_text()))} == {}


def test_the_ledger_itself_is_seen_to_write():
    assert any(writes(path.read_text()) for path in WRITERS[0].glob("*.py"))


@pytest.mark.parametrize(
    "line",
    [
        "from sqlalchemy import insert",
        "from sqlalchemy.dialects.postgresql import insert",
        "sa.update(payments)",
        "sqlalchemy.delete(x)",
        "payments.insert()",
        "schema.tabs.update()",
        "text('UPDATE payments SET state = 1')",
        "text('delete from tabs')",
    ],
)
def test_each_way_to_write_is_recognised(line):
    assert writes(line) == [1]


@pytest.mark.parametrize("line", ["headers.update(x)", "from sqlalchemy import select", "'update'"])
def test_what_is_no_write_is_let_pass(line):
    assert writes(line) == []
