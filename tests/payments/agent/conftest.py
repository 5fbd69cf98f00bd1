"""Agents that pay the devnet's seller from its treasury, on a ledger of their own."""

import contextlib
import threading

import httpx
import prometheus_client
import pytest
from sqlalchemy import select
from x402.http.utils import encode_payment_required_header
from x402.schemas import PaymentRequired, PaymentRequirements

from tests.payments.agent.buying import Proxy
from tinybrain.config import load_settings
from tinybrain.devnet.chain import connect
from tinybrain.devnet.token import place_usdc
from tinybrain.devnet.wallets import private_key
from tinybrain.payments.agent import PayingTransport
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.records import Limits
from tinybrain.payments.schema import purchases
from tinybrain.telemetry.metrics import Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters


@pytest.fixture
def database_kind(request):
    """SQLite; a test whose subject is the database asks for PostgreSQL too, indirectly."""
    return getattr(request, "param", "sqlite")


@pytest.fixture(scope="module")
def web3(devnet):
    return connect(devnet.rpc_url)


@pytest.fixture
def spent(devnet, devnet_tools, web3):
    """What the treasury paid since the test began."""
    balance = place_usdc(web3, devnet_tools).functions.balanceOf(devnet.wallets.treasury.address)
    before = balance.call()
    return lambda: before - balance.call()


@pytest.fixture
def open_agent(devnet, database):
    """An httpx client that pays; its ledger's clock is the real one."""

    def build(database=database, *, quote_timeout_s=20, follow_redirects=False, **changes):
        settings = load_settings(
            network="eip155:84532",
            treasury_private_key=private_key(devnet.wallets.treasury),
            **{
                "upstream_url": devnet.upstream_url,
                "upstream_pay_to": devnet.wallets.provider.address,
            }
            | changes,
        )
        transport = PayingTransport(
            settings,
            Ledger(database, limits=Limits.of(settings)),
            Metrics(PrometheusMeters(prometheus_client.CollectorRegistry())),
            quote_timeout_s=quote_timeout_s,
        )
        return httpx.AsyncClient(
            transport=transport,
            base_url=settings.upstream_url,
            timeout=30,
            follow_redirects=follow_redirects,
        )

    return build


@pytest.fixture
def bought(database):
    """The rows of the purchases."""

    async def read():
        async with database.read() as connection:
            return (await connection.execute(select(purchases))).all()

    return read


@pytest.fixture
def open_proxy(devnet):
    with contextlib.ExitStack() as stack:

        def build():
            server = stack.enter_context(Proxy(devnet.upstream_url))
            threading.Thread(target=server.serve_forever).start()
            stack.callback(server.shutdown)
            return server

        yield build


@pytest.fixture
def proxy(open_proxy):
    return open_proxy()


@pytest.fixture
def quoted(devnet):
    """A PAYMENT-REQUIRED header with the seller's terms, but for `changes`."""

    def build(*offers, **changes):
        terms = {
            "scheme": "exact",
            "network": "eip155:84532",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "amount": "1000",
            "pay_to": devnet.wallets.provider.address,
            "max_timeout_seconds": 300,
            "extra": {"name": "USDC", "version": "2"},
        }
        accepts = [PaymentRequirements(**terms | offer) for offer in offers or [changes]]
        return encode_payment_required_header(PaymentRequired(x402_version=2, accepts=accepts))

    return build
