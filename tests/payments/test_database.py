"""Opening, migrating and failing to open the ledger's database."""

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from tinybrain.errors import ConfigError, LedgerUnavailable
from tinybrain.payments.database import Database
from tinybrain.payments.schema import metadata


async def test_the_migrations_make_exactly_the_schema(database):
    def differences(connection):
        return compare_metadata(MigrationContext.configure(connection), metadata)

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_several_openers_at_once_migrate_once(tmp_path):
    url = f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
    databases = await asyncio.gather(*(Database.open(url) for _ in range(6)))
    async with databases[0].read() as connection:
        assert (await connection.execute(text("select * from alembic_version"))).all() == [
            ("0001",)
        ]
    for database in databases:
        await database.close()


async def test_commits_are_synced_and_readers_do_not_wait(database):
    async with database.read() as connection:
        mode = await connection.scalar(text("pragma journal_mode"))
        synchronous = await connection.scalar(text("pragma synchronous"))
    assert (mode, synchronous) == ("wal", 2)


async def test_a_write_that_raises_leaves_nothing(database):
    insert = text(
        "insert into answers (id, created_ms, credential, mode, outcome, price, fallback)"
        " values ('a', 1, 'x402', 'auto', 'running', 1, 0)"
    )

    async def write_and_fail():
        async with database.write() as connection:
            await connection.execute(insert)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    async with database.read() as connection:
        assert await connection.scalar(text("select count(*) from answers")) == 0


async def test_a_folder_made_for_the_ledger_is_its_owners_alone(tmp_path):
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'new' / 'ledger.db'}")
    await database.close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


async def test_a_folder_that_cannot_be_made_is_a_clear_error():
    with pytest.raises(LedgerUnavailable, match="cannot be created"):
        await Database.open("sqlite+aiosqlite:////proc/nowhere/ledger.db")


async def test_a_file_that_is_no_database_is_a_clear_error(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"not a database at all, but long enough" * 100)
    with pytest.raises(LedgerUnavailable, match="not a database"):
        await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")


async def test_an_unsupported_database_names_the_setting():
    with pytest.raises(ConfigError, match="TINYBRAIN_LEDGER_URL"):
        await Database.open("postgresql+asyncpg://localhost/tinybrain")


async def test_errors_never_carry_what_was_to_be_written(database):
    with pytest.raises(LedgerUnavailable) as caught:
        async with database.write() as connection:
            await connection.execute(
                text("insert into nowhere values (:secret)"), {"secret": "s3cret"}
            )
    assert "s3cret" not in str(caught.value)
