"""A ledger of the first version, with rows in every state, becomes one of today."""

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from tinybrain.payments import database as database_module
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.schema import metadata, payments

PAYER, OURS = "0x" + "b" * 40, "0x" + "c" * 40
STATES = ["claimed", "served", "settling", "settled", "released", "debt"]
BOUGHT = ["reserved", "paid", "released"]


def fill(connection):
    """What version 0001 wrote."""
    config = Config()
    config.set_main_option("script_location", database_module.MIGRATIONS)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")
    tables = sa.MetaData()
    tables.reflect(connection)
    for number, state in enumerate(STATES, 1):
        connection.execute(tables.tables["answers"].insert().values(**answer(number)))
        connection.execute(tables.tables["payments"].insert().values(**payment(number, state)))
    for number, state in enumerate(BOUGHT, 1):
        connection.execute(tables.tables["purchases"].insert().values(**purchase(number, state)))


def answer(number):
    return {
        "id": f"ans_{number}",
        "created_ms": number,
        "credential": "x402",
        "mode": "auto",
        "outcome": "completed",
        "price": 10_000,
        "fallback": False,
    }


def payment(number, state):
    return {
        "id": number,
        "answer_id": f"ans_{number}",
        "network": "eip155:84532",
        "asset": "0x" + "a" * 40,
        "payer": PAYER,
        "nonce": f"0x{number:064x}",
        "pay_to": OURS,
        "amount": 10_000 + number,
        "valid_before": 2,
        "request_hash": "0" * 64,
        "payload": {"signature": "0x1"},
        "requirements": {},
        "state": state,
        "transaction": "0x7" if state == "settled" else None,
        "attempts": 1,
        "claimed_ms": 100 + number,
        "updated_ms": 200 + number,
        "due_ms": 0,
    }


def purchase(number, state):
    return {
        "id": number,
        "answer_id": "ans_1",
        "provider": "upstream.example",
        "network": "eip155:84532",
        "asset": "0x" + "a" * 40,
        "payer": OURS,
        "pay_to": "0x" + "d" * 40,
        "amount": 1_000 + number,
        "state": state,
        "created_ms": 1,
        "updated_ms": 300 + number,
    }


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request, tmp_path, monkeypatch):
    """A ledger made by version 0001 and opened by this one."""
    if request.param == "sqlite":
        url, postgres = f"sqlite+aiosqlite:///{tmp_path / 'old.db'}", None
    else:
        postgres = request.getfixturevalue("postgres")
        postgres.create_database("old")
        url = postgres.url("old")
    with monkeypatch.context() as old:
        old.setattr(database_module, "_migrate", fill)
        await (await Database.open(url)).close()
    database = await Database.open(url)
    yield database
    await database.close()
    if postgres:
        postgres.drop_database("old")


async def test_the_schema_is_todays(database):
    def differences(connection):
        return compare_metadata(MigrationContext.configure(connection), metadata)

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_every_row_is_as_it_was_with_its_new_columns_filled(books):
    rows = await books.rows(payments)
    assert [row.state for row in rows] == STATES
    assert [row.owed for row in rows] == [row.amount for row in rows]
    assert {(row.purpose, row.flow, row.final, row.refund_of) for row in rows} == {
        ("answer", "authorization", False, None)
    }
    assert rows[3].payload == {"signature": "0x1"}


async def test_the_journal_tells_what_happened(books):
    payer, wallet = f"payer:{PAYER}", f"wallet:{OURS}"
    assert sorted(await books.journal()) == sorted(
        [("sale", payer, "revenue", amount) for amount in (10_002, 10_003, 10_004, 10_006)]
        + [("collection", wallet, payer, 10_004), ("purchase", "cost", wallet, 1_002)]
    )


async def test_unfinished_rows_go_on_where_they_were(database, walks, clock):
    ledger = Ledger(database, clock=clock)
    assert {row.id for row in await ledger.due_payments()} == {2, 3}
    await walks.collect(2)
    assert await ledger.uncollectable(3, "cancelled") == "debt"
    assert [row.id for row in await ledger.debts(PAYER)] == [3, 6]
    assert {row.id for row in await ledger.shallow(below=7)} == {2, 4}
