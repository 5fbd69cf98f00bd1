"""A business whose audits are tested."""

import pytest

from tests.payments.audit.business import FAILED, USDC, Business
from tinybrain.payments.audit import chain as comparison
from tinybrain.payments.chain import Chain
from tinybrain.payments.rpc import Rpc


@pytest.fixture
def database_kind(request):
    """SQLite; a test whose subject is the database asks for PostgreSQL too, indirectly."""
    return getattr(request, "param", "sqlite")


@pytest.fixture(autouse=True)
def _no_pause_before_a_balance_is_asked_again(monkeypatch):
    monkeypatch.setattr(comparison, "BALANCE_PAUSE_S", 0)


@pytest.fixture
async def business(database, chain):
    """Its book is open, and nothing has happened yet."""
    rpc = Rpc(chain.url)
    business = Business(database, chain, Chain(rpc, USDC.address))
    await business.open()
    yield business
    await rpc.aclose()


@pytest.fixture
def found(business):
    """The differences that an audit finds, by what they name."""

    async def run(**changes):
        told = {}
        for finding in (await business.audit(**changes)).differences:
            told[finding.subject] = f"{told.get(finding.subject, '')}{finding.text}\n"
        return told

    return run


@pytest.fixture
def failed():
    """The record of an answer that failed."""
    return FAILED
