"""A merchant whose payments are settled, on a chain of its own."""

import pytest

from tests.payments.settling import Merchant
from tinybrain.payments.chain import Chain
from tinybrain.payments.facilitators import HttpFacilitator
from tinybrain.payments.rpc import Rpc

NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def database_kind():
    return "sqlite"


@pytest.fixture(scope="module")
def chain(start_chain, tmp_path_factory):
    """Its time goes ahead of the clock's here and its blocks are taken back: nobody else's."""
    chain = start_chain(tmp_path_factory.mktemp("chain"))
    yield chain
    chain.stop()


@pytest.fixture
async def merchant(chain, database, ledger, clock):
    merchant = Merchant(chain, database, ledger, clock)
    yield merchant
    await merchant.aclose()


@pytest.fixture
def settler(merchant):
    return merchant.settler()


@pytest.fixture
def payer(chain):
    return chain.new_wallet()


@pytest.fixture
async def served(merchant, payer):
    """A payment of an answer that was delivered."""
    return await merchant.sell(payer)


@pytest.fixture
def row(merchant, served):
    """The payment as it stands now."""
    return lambda: merchant.row(served)


@pytest.fixture
async def silent_chain(merchant):
    rpc = Rpc(NOBODY)
    yield Chain(rpc, merchant.settings.token.address)
    await rpc.aclose()


@pytest.fixture
async def silent_facilitator():
    away = HttpFacilitator(NOBODY)
    yield away
    await away.aclose()
