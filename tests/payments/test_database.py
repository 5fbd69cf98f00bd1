"""What both databases promise: migrations, the write lock, consistent reads, clear errors."""

import asyncio
import stat
import sys
import traceback

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from tinybrain.errors import ConfigError, LedgerUnavailable
from tinybrain.payments import database as database_module
from tinybrain.payments.database import Database
from tinybrain.payments.schema import metadata

SECRET = "s3cret"
COUNT = text("select n from counter")
PATIENCE_S = 8  # less than the 10 s that the databases wait for a lock


@pytest.fixture
async def counter(database):
    """A table with one number, 0."""
    async with database.write() as connection:
        await connection.execute(text("create table counter (n integer not null unique)"))
        await connection.execute(text("insert into counter values (0)"))
    return database


@pytest.fixture
def empty_database_url(request, database_url):
    """A database that nobody migrated."""
    if database_url.startswith("sqlite"):
        yield database_url
        return
    postgres = request.getfixturevalue("postgres")
    postgres.create_database("empty")
    yield postgres.url("empty")
    postgres.drop_database("empty")


async def increment(database):
    async with database.write() as connection:
        number = await connection.scalar(COUNT)
        await asyncio.sleep(0)
        await connection.execute(text("update counter set n = :n"), {"n": number + 1})


async def count(database):
    async with database.read() as connection:
        return await connection.scalar(COUNT)


async def numbers(database):
    async with database.read() as connection:
        return (await connection.scalars(COUNT)).all()


async def test_the_migrations_make_exactly_the_schema(database):
    def differences(connection):
        return compare_metadata(MigrationContext.configure(connection), metadata)

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_several_openers_at_once_migrate_once(empty_database_url):
    databases = await asyncio.gather(*(Database.open(empty_database_url) for _ in range(6)))
    async with databases[0].read() as connection:
        versions = (await connection.execute(text("select * from alembic_version"))).all()
    for database in databases:
        await database.close()
    assert len(versions) == 1


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("update counter set n = 1", {}),
        ("insert into counter values (:n)", [{"n": 1}, {"n": 2}]),  # the driver's executemany
    ],
)
async def test_a_write_that_raises_leaves_nothing(counter, statement, parameters):
    async def write_and_fail():
        async with counter.write() as connection:
            await connection.execute(text(statement), parameters)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    assert await numbers(counter) == [0]


async def test_writers_of_one_process_lose_no_update(counter):
    await asyncio.gather(*(increment(counter) for _ in range(20)))
    assert await count(counter) == 20


async def test_writers_of_several_processes_lose_no_update(counter, database_url):
    # Each Database queues its own writers; only the lock in the database orders these.
    databases = [await Database.open(database_url) for _ in range(4)]
    await asyncio.gather(*(increment(database) for database in databases for _ in range(5)))
    for database in databases:
        await database.close()
    assert await count(counter) == 20


async def test_a_reader_sees_one_state_and_waits_for_no_writer(counter):
    async with counter.read() as connection:
        before = await connection.scalar(COUNT)
        await increment(counter)
        assert await connection.scalar(COUNT) == before
    async with counter.write() as connection:
        await connection.execute(text("update counter set n = 5"))
        assert await asyncio.wait_for(count(counter), PATIENCE_S) == 1


async def test_many_waiting_writers_leave_room_for_readers(counter):
    async with counter.write():
        writers = [asyncio.create_task(increment(counter)) for _ in range(50)]
        await asyncio.sleep(0.01)
        assert await asyncio.wait_for(count(counter), PATIENCE_S) == 0
    await asyncio.gather(*writers)


async def test_cancelled_writers_do_not_keep_the_lock(counter):
    tasks = [asyncio.create_task(increment(counter)) for _ in range(20)]
    for task in tasks:
        await asyncio.sleep(0.002)
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    committed = await count(counter)
    await increment(counter)
    assert committed >= done.count(None)
    assert await count(counter) == committed + 1


async def test_a_transaction_that_takes_too_long_ends(counter, monkeypatch):
    async def insert_and_sleep():
        async with counter.write() as connection:
            await connection.execute(text("insert into counter values (7)"))
            inserted.set()
            await asyncio.sleep(10)

    inserted = asyncio.Event()
    with monkeypatch.context() as impatient:
        impatient.setattr(database_module, "TRANSACTION_TIMEOUT_S", 3)  # the insert is done by then
        with pytest.raises(LedgerUnavailable, match="in time"):
            await insert_and_sleep()
    assert inserted.is_set()
    await increment(counter)
    assert await numbers(counter) == [1]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into nowhere values (:secret)",
        "insert into secrets values (1, :secret)",  # a row with this key is there
        "insert into secrets values (2, null), (null, :secret)",
        "insert into secrets values (:secret, 'text for a number')",
    ],
)
async def test_errors_never_carry_what_was_to_be_written(database, statement):
    secret = {"secret": SECRET}
    async with database.write() as connection:
        await connection.execute(
            text("create table secrets (id integer primary key, secret varchar(9) not null unique)")
        )
        await connection.execute(text("insert into secrets values (1, :secret)"), secret)
    with pytest.raises(LedgerUnavailable) as caught:
        async with database.write() as connection:
            await connection.execute(text(statement), secret)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_commits_are_synced(database, database_url):
    setting = "pragma synchronous" if "sqlite" in database_url else "show synchronous_commit"
    async with database.write() as connection:
        assert await connection.scalar(text(setting)) in (2, "on")


async def test_rows_can_be_streamed(counter):
    async with counter.read() as connection:
        rows = await connection.stream(text("select 1 union select 2 union select 3"))
        assert [row async for row in rows] == [(1,), (2,), (3,)]


async def test_a_folder_made_for_the_ledger_is_its_owners_alone(tmp_path):
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'new' / 'ledger.db'}")
    await database.close()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


async def test_a_folder_that_cannot_be_made_is_a_clear_error():
    with pytest.raises(LedgerUnavailable, match="cannot be created"):
        await Database.open("sqlite+aiosqlite:////proc/nowhere/ledger.db")


async def test_a_file_that_is_no_database_is_a_clear_error(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"not a database at all, but long enough" * 100)
    with pytest.raises(LedgerUnavailable, match="not a database"):
        await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")


@pytest.mark.parametrize("url", ["mysql://localhost/tinybrain", "sqlite+aiosqlite://", "ledger.db"])
async def test_an_unsupported_database_names_the_setting(url):
    with pytest.raises(ConfigError, match="TINYBRAIN_LEDGER_URL"):
        await Database.open(url)


async def test_a_missing_driver_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigError, match=r"tinybrain\[postgres\]"):
        await Database.open("postgresql://localhost/tinybrain")


async def test_no_server_is_a_clear_error(unused_tcp_port):
    with pytest.raises(LedgerUnavailable, match="Connect call failed"):
        await Database.open(f"postgres://127.0.0.1:{unused_tcp_port}/tinybrain")


async def test_who_only_reads_neither_makes_nor_migrates_a_ledger(database, database_url, tmp_path):
    empty = f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
    with pytest.raises(ConfigError, match="holds no ledger"):
        await Database.open(empty, migrate=False)
    reader = await Database.open(database_url, migrate=False)
    await reader.close()
