"""A whole service in this process: real HTTP, ledger, chain, TinyChat and a paid upstream."""

import asyncio
import contextlib
import socket
import sqlite3
import threading
import time
from contextlib import asynccontextmanager

import httpx
import prometheus_client
import pytest
import uvicorn
from eth_account import Account

from tests.api.callers import Caller
from tinybrain.api.app import build_app
from tinybrain.api.assembly import build_gateway
from tinybrain.chat import Finished, Prefilled, Token
from tinybrain.config import load_settings
from tinybrain.devnet.chain import connect
from tinybrain.devnet.token import give_ether, mint, place_usdc
from tinybrain.engine.loading import load_tinychat
from tinybrain.payments.agent import PayingTransport
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.facilitators import build_gas_wallet, build_settler, build_verifier
from tinybrain.payments.housekeeping import Housekeeping
from tinybrain.payments.ledger import Ledger, TransactionBook
from tinybrain.payments.records import Limits
from tinybrain.payments.refunding import RefundSigner, can_refund
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.settlement import Settler
from tinybrain.telemetry.metrics import Levels, Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters
from tinybrain.upstreams.factory import build_upstream

API_KEY = "operator-key"


class Service:
    """The deployments' parts joined in one event loop, served by uvicorn in a thread."""

    def __init__(self, settings, local):
        self.settings = settings
        self.local = local
        self.may_settle = threading.Event()
        self.may_settle.set()
        self.is_gas_low = False
        self._registry = prometheus_client.CollectorRegistry()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        app = build_app(self._open_gateway, self._scrape)
        self._server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="warning"))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    def __enter__(self):
        self._thread.start()
        self.wait_until(lambda: self._server.started or not self._thread.is_alive())
        assert self._server.started
        return self

    def __exit__(self, *_):
        self.may_settle.set()
        self._server.should_exit = True
        self._thread.join()

    @asynccontextmanager
    async def _open_gateway(self):
        settings, metrics = self.settings, Metrics(PrometheusMeters(self._registry))
        self._loop = asyncio.get_running_loop()
        database = await Database.open(settings.ledger)
        self.ledger = ledger = Ledger(database, limits=Limits.of(settings))
        verifier = build_verifier(settings)
        store = TransactionBook(database, settings.network)
        wallet = build_gas_wallet(settings, store)
        collector = build_settler(settings, wallet)
        rpc = Rpc(settings.rpc)
        chain = Chain(rpc, settings.token.address)
        self.settler = Settler(
            ledger, collector, chain, metrics, RefundSigner(settings), wallet=wallet
        )
        self.housekeeping = Housekeeping(
            settings, database, ledger, chain, metrics, Levels(PrometheusMeters(self._registry))
        )
        pays = settings.upstream_api_key is None
        transport = PayingTransport(settings, ledger, metrics) if pays else None
        async with httpx.AsyncClient(transport=transport) as http:
            gateway = build_gateway(
                settings,
                database,
                verifier,
                local=self.local,
                upstream=build_upstream(settings, http),
                settle=self._settle,
                settle_payment=self._settle_payment,
                gas_low=self._gas_low,
                metrics=metrics,
            )
            self.gateway = gateway
            yield gateway
            await gateway.close()
        await verifier.aclose()
        await collector.aclose()
        await rpc.aclose()
        await database.close()

    async def _settle(self, answer_id):
        await asyncio.to_thread(self.may_settle.wait)
        return await self.settler.settle_answer(answer_id)

    async def _settle_payment(self, payment_id):
        await asyncio.to_thread(self.may_settle.wait)
        return await self.settler.settle_payment(payment_id)

    async def _gas_low(self):
        await asyncio.to_thread(self.may_settle.wait)
        return self.is_gas_low

    async def _scrape(self):
        return prometheus_client.generate_latest(self._registry).decode()

    @property
    def connections(self):
        """How many callers are connected, as far as the server has noticed."""
        return len(self._server.server_state.connections)

    def run(self, coroutine):
        """Run in the service's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def drain(self):
        """What the Settlement deployment does every second."""
        self.run(self.housekeeping.run())
        return self.run(self.settler.drain())

    def rows(self, table, where="1"):
        """Rows of the ledger, read beside the service."""
        path = self.settings.ledger.removeprefix("sqlite+aiosqlite:///")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(f"SELECT * FROM {table} WHERE {where}").fetchall()

    def payment(self, answer_id):
        (row,) = self.rows("payments", f"answer_id = '{answer_id}'")
        return row

    def outcome(self):
        """How the last answer ended, and where its payment stands."""
        (answer,) = self.rows("answers", "rowid = (SELECT max(rowid) FROM answers)")
        return answer["outcome"], self.payment(answer["id"])["state"]

    def unfinished(self):
        running = self.rows("answers", "outcome = 'running'")
        return running + self.rows("payments", "state IN ('claimed', 'served', 'settling')")

    def settled(self, answer_id):
        """Wait until an answer is paid."""
        self.wait_until(lambda: self.payment(answer_id)["state"] == "settled")

    @staticmethod
    def wait_until(condition, timeout_s=15):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)


class ScriptedModel:
    """A LocalModel that says words or tokens, waits for events and raises errors, as told."""

    name = "tinychat"

    def __init__(self, *script):
        self._script = script
        self.started = threading.Event()
        self.closed = threading.Event()

    async def generate(self, messages, sampling):
        self.started.set()
        try:
            yield Prefilled(2.0, 5)
            for step in self._script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, threading.Event):
                    while not step.is_set():  # noqa: ASYNC110  # set by another thread
                        await asyncio.sleep(0.01)
                else:
                    yield step if isinstance(step, Token) else Token(step, -0.01, 0.1, 0.9)
                    await asyncio.sleep(0)
            yield Finished("stop", 5, len(self._script))
        finally:
            self.closed.set()


@pytest.fixture(scope="session")
def web3(devnet):
    return connect(devnet.rpc_url)


@pytest.fixture(scope="session")
def token(web3, devnet_tools):
    return place_usdc(web3, devnet_tools)


@pytest.fixture(scope="session")
def usdc(token):
    """Atomic USDC of an address."""
    return lambda address: token.functions.balanceOf(address).call()


@pytest.fixture(scope="session")
def tinychat():
    model = load_tinychat(load_settings(device="cpu"), slots=4)
    yield model
    model.close()


@pytest.fixture(scope="session")
def open_service(devnet, web3, tinychat, tmp_path_factory):
    """Opens a service with a ledger and a gas wallet of its own."""
    devnet_settings = {
        name.removeprefix("TINYBRAIN_").lower(): value
        for name, value in devnet.environment().items()
    }

    def build(local=None, **changes):
        gas = Account.create()
        give_ether(web3, gas.address)
        ledger = tmp_path_factory.mktemp("service") / "ledger.db"
        own = {
            "ledger_url": f"sqlite+aiosqlite:///{ledger}",
            "gas_private_key": gas.key.to_0x_hex(),
            "api_key": API_KEY,
            "audit_share": 0,  # what is bought is counted
        }
        settings = load_settings(**devnet_settings | own | changes)
        refunds = {"refunds": can_refund(settings)}
        return Service(settings.model_copy(update=refunds), local or tinychat)

    return build


@pytest.fixture(scope="session")
def service(open_service):
    """The session's service, as it is deployed; whatever was asked of it, nothing stays open."""
    with open_service() as service:
        yield service
        service.wait_until(lambda: not service.drain() and not service.unfinished())


@pytest.fixture
def pauper(usdc):
    """A new wallet with nothing."""
    return Caller(Account.create(), usdc)


@pytest.fixture
def new_caller(web3, token, usdc):
    """Makes wallets with a dollar, and ether for transactions of their own."""

    def build():
        wallet = Account.create()
        give_ether(web3, wallet.address)
        mint(web3, token, wallet.address, 1_000_000)
        return Caller(wallet, usdc)

    return build


@pytest.fixture
def caller(new_caller):
    return new_caller()


@pytest.fixture
def scripted():
    return ScriptedModel
