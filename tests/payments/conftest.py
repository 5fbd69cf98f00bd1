"""A real ledger for every test, once on SQLite and once on PostgreSQL; builders of its rows."""

import asyncio

import pytest

from tests.payments.local_postgres import LocalPostgres
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.receipts import Receipts
from tinybrain.payments.records import NewAnswer, NewPayment, NewPurchase


class Clock:
    """A clock that tests move by hand."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(scope="session")
def postgres():
    """The session's PostgreSQL, with a migrated database `template` to copy."""
    try:
        postgres = LocalPostgres()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    try:
        postgres.start()
        postgres.create_database("template")
        asyncio.run(_migrate(postgres.url("template")))
        yield postgres
    finally:
        postgres.remove()


async def _migrate(url):
    await (await Database.open(url)).close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request):
    """What the ledger is kept in."""
    return request.param


@pytest.fixture
def database_url(database_kind, request, tmp_path):
    """A database of that kind; PostgreSQL's is migrated already."""
    if database_kind == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
        return
    postgres = request.getfixturevalue("postgres")
    postgres.create_database("ledger", template="template")
    yield postgres.url("ledger")
    postgres.drop_database("ledger")


@pytest.fixture
async def database(database_url):
    database = await Database.open(database_url)
    yield database
    await database.close()


@pytest.fixture
def ledger(database, clock):
    return Ledger(database, clock=clock)


@pytest.fixture
def receipts(database):
    return Receipts(database)


@pytest.fixture
def new_answer():
    def build(number=1, credential="x402"):
        return NewAnswer(f"ans_{number:032x}", credential, "auto", 10_000)

    return build


@pytest.fixture
def new_payment(clock):
    def build(nonce=1, **changes):
        values = {
            "network": "eip155:84532",
            "asset": "0x" + "a" * 40,
            "payer": "0x" + "b" * 40,
            "nonce": f"0x{nonce:064x}",
            "pay_to": "0x" + "c" * 40,
            "amount": 10_000,
            "valid_before": int(clock()) + 300,
            "request_hash": "0" * 64,
            "payload": {},
            "requirements": {},
        }
        return NewPayment(**(values | changes))

    return build


@pytest.fixture
def new_purchase():
    def build(amount=1_000, answer_id="ans_x"):
        return NewPurchase(
            answer_id=answer_id,
            provider="upstream.example",
            network="eip155:84532",
            asset="0x" + "a" * 40,
            payer="0x" + "b" * 40,
            pay_to="0x" + "d" * 40,
            amount=amount,
        )

    return build
