"""A PostgreSQL server that dies, hangs and comes back, under an open ledger."""

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial

import pytest
from sqlalchemy import text

from tests.payments.local_postgres import LocalPostgres
from tinybrain.errors import LedgerUnavailable
from tinybrain.payments import database as database_module
from tinybrain.payments import postgresql
from tinybrain.payments.database import Database

COMMITTING = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"


@pytest.fixture(scope="module")
def server():
    """A server that these tests may kill."""
    try:
        server = LocalPostgres()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
async def open_ledger(server):
    """Opens the server's ledger, as one more process does."""
    async with AsyncExitStack() as opened:

        async def open_():
            database = await Database.open(server.url())
            opened.push_async_callback(database.close)
            return database

        yield open_


@pytest.fixture
async def database(open_ledger):
    return await open_ledger()


async def nothing():
    pass


async def write(database, meanwhile=nothing):
    """A transaction that stays open while something else is done."""
    async with database.write() as connection:
        await connection.execute(text("create temp table t (n integer) on commit drop"))
        await meanwhile()


async def read(database, query="select 1"):
    async with database.read() as connection:
        return await connection.scalar(text(query))


async def test_a_server_killed_between_transactions_is_found_again(server, database):
    await asyncio.gather(*(read(database) for _ in range(10)))
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    assert await asyncio.gather(*(read(database) for _ in range(10))) == [1] * 10
    await write(database)


async def test_while_the_server_is_away_every_question_fails_at_once(server, database):
    await asyncio.to_thread(server.kill)
    start = time.monotonic()
    for ask in (read, write) * 3:
        with pytest.raises(LedgerUnavailable):
            await ask(database)
    assert time.monotonic() - start < postgresql.CONNECT_TIMEOUT_S  # of a single one
    await asyncio.to_thread(server.start)
    await write(database)


async def test_a_transaction_under_way_when_the_server_dies_fails(server, database):
    with pytest.raises(LedgerUnavailable):
        await write(database, meanwhile=partial(asyncio.to_thread, server.kill))
    await asyncio.to_thread(server.start)
    await write(database)


async def test_a_commit_whose_outcome_is_unknown_is_an_error(server, database):
    async with database.write() as connection:
        await connection.execute(text("create table if not exists slow (n integer)"))
        # Makes COMMIT itself take long: the check runs when everything else is done.
        await connection.execute(
            text(
                "create or replace function slow() returns trigger language plpgsql as"
                " 'begin perform pg_sleep(9); return null; end'"
            )
        )
        await connection.execute(
            text(
                "create constraint trigger slow after insert on slow deferrable initially deferred"
                " for each row execute function slow()"
            )
        )

    async def commit():
        async with database.write() as connection:
            await connection.execute(text("insert into slow values (1)"))

    committing = asyncio.create_task(commit())
    while not await read(database, COMMITTING):  # noqa: ASYNC110  # the server tells nobody
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.kill)
    with pytest.raises(LedgerUnavailable):
        await committing
    await asyncio.to_thread(server.start)
    await write(database)


async def test_a_server_that_hangs_is_given_up_and_found_again(server, database, monkeypatch):
    await asyncio.gather(read(database), read(database))
    server.pause()
    start = time.monotonic()
    with monkeypatch.context() as impatient:
        impatient.setattr(database_module, "TRANSACTION_TIMEOUT_S", 0.5)
        outcomes = await asyncio.gather(
            write(database), read(database), read(database), write(database), return_exceptions=True
        )
    server.resume()
    assert [type(outcome) for outcome in outcomes] == [LedgerUnavailable] * 4
    assert time.monotonic() - start < database_module.TRANSACTION_TIMEOUT_S
    await write(database)


async def test_a_process_that_hangs_does_not_keep_the_write_lock(open_ledger, monkeypatch):
    working = await open_ledger()
    monkeypatch.setattr(postgresql, "IDLE_TIMEOUT_S", 2)  # opening a ledger is under it too
    hanging = await open_ledger()
    written = asyncio.Event()

    async def meanwhile():
        await write(working)
        written.set()

    with pytest.raises(LedgerUnavailable):
        await write(hanging, meanwhile=meanwhile)
    assert written.is_set()


async def test_a_lock_that_is_never_free_is_a_clear_error(open_ledger, monkeypatch):
    monkeypatch.setattr(postgresql, "WAIT_S", 0.3)
    hanging, waiting = await open_ledger(), await open_ledger()
    with pytest.raises(LedgerUnavailable, match="lock timeout"):
        await write(hanging, meanwhile=partial(write, waiting))


async def test_a_reader_cannot_write(database):
    with pytest.raises(LedgerUnavailable, match="read-only"):
        async with database.read() as connection:
            await connection.execute(text("create table nothing (n integer)"))


async def test_urls_may_carry_the_options_of_libpq(server):
    database = await Database.open(server.url() + "?sslmode=prefer&application_name=mine")
    await database.close()
    with pytest.raises(LedgerUnavailable, match="SSL"):
        await Database.open(server.url() + "?sslmode=require")
