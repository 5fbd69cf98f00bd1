"""The agent pays quotes it may pay, once, and never more than its caps."""

import asyncio
import http.server
import threading

import httpx
import prometheus_client
import pytest
from eth_account import Account
from sqlalchemy import select
from x402.http.utils import encode_payment_required_header
from x402.schemas import PaymentRequired as Challenge
from x402.schemas import PaymentRequirements

from tinybrain.config import load_settings
from tinybrain.devnet.chain import connect
from tinybrain.devnet.token import place_usdc
from tinybrain.devnet.upstream import ALIAS, PRICE
from tinybrain.devnet.wallets import private_key
from tinybrain.errors import BudgetExceeded, UpstreamError
from tinybrain.payments.agent import PayingTransport
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.schema import purchases
from tinybrain.telemetry.metrics import Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters

pytestmark = pytest.mark.chain
ORDER = {"model": ALIAS, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
STRANGER = Account.create().address


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

    def build(**changes):
        settings = load_settings(
            network="eip155:84532",
            treasury_private_key=private_key(devnet.wallets.treasury),
            **{"upstream_pay_to": devnet.wallets.provider.address} | changes,
        )
        metrics = Metrics(PrometheusMeters(prometheus_client.CollectorRegistry()))
        transport = PayingTransport(settings, Ledger(database), metrics)
        return httpx.AsyncClient(transport=transport, timeout=30)

    return build


@pytest.fixture
def bought(database):
    """The rows of the purchases."""

    async def read():
        async with database.read() as connection:
            return (await connection.execute(select(purchases))).all()

    return read


@pytest.fixture
def ask(devnet):
    """Asks for one answer, at the seller's or at a proxy's URL."""

    async def post(agent, url=devnet.upstream_url):
        extensions = {"tinybrain_answer_id": "ans_1"}
        return await agent.post(f"{url}/chat/completions", json=ORDER, extensions=extensions)

    return post


class Proxy(http.server.ThreadingHTTPServer):
    """Stands before the seller: what `faults` holds happens to the next paid requests."""

    def __init__(self, target, challenge=None):
        super().__init__(("127.0.0.1", 0), _Forward)
        self.url = f"http://127.0.0.1:{self.server_port}/api/v1"
        self.target = target.removesuffix("/api/v1")
        self.challenge = challenge
        self.faults = []
        self.signatures = []


class _Forward(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signature = self.headers["PAYMENT-SIGNATURE"]
        self.server.signatures += [signature] if signature else []
        if self.server.challenge is not None:
            self._answer(402, {"PAYMENT-REQUIRED": self.server.challenge}, b"")
            return
        fault = self.server.faults.pop() if signature and self.server.faults else None
        if fault == "refuse":
            self._answer(500, {}, b"")
            return
        headers = {"PAYMENT-SIGNATURE": signature} if signature else {}
        sent = httpx.post(self.server.target + self.path, content=body, headers=headers, timeout=30)
        if fault == "lose":
            return
        kept = {name: value for name, value in sent.headers.items() if "payment" in name}
        self._answer(503 if fault == "break" else sent.status_code, kept, sent.content)

    def _answer(self, status, headers, body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy(devnet):
    with Proxy(devnet.upstream_url) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


async def test_an_answer_is_bought_for_its_quote(open_agent, ask, bought, spent, web3):
    async with open_agent() as agent:
        answer = await ask(agent)
    assert answer.status_code == 200
    (purchase,) = await bought()
    assert (purchase.state, purchase.amount, purchase.answer_id) == ("paid", PRICE, "ans_1")
    assert answer.extensions["tinybrain_cost"] == spent() == PRICE
    assert answer.extensions["tinybrain_transaction"] == purchase.transaction
    assert web3.eth.get_transaction_receipt(purchase.transaction)["status"] == 1


async def test_what_is_free_passes_through(open_agent, devnet, bought):
    async with open_agent() as agent:
        answer = await agent.get(f"{devnet.upstream_url}/models")
    assert (answer.status_code, await bought()) == (200, [])


async def test_a_quote_above_the_cap_of_a_call_is_refused(open_agent, ask, bought, spent):
    async with open_agent(max_cost_per_call="0.000999") as agent:
        with pytest.raises(BudgetExceeded, match="MAX_COST_PER_CALL"):
            await ask(agent)
    assert (await bought(), spent()) == ([], 0)


async def test_a_seller_other_than_the_pinned_one_is_not_paid(open_agent, ask, bought, spent):
    async with open_agent(upstream_pay_to=STRANGER) as agent:
        with pytest.raises(UpstreamError) as caught:
            await ask(agent)
    assert caught.value.code == "upstream_payment_terms"
    assert (await bought(), spent()) == ([], 0)


async def test_the_cap_of_the_day_holds_however_many_ask_at_once(open_agent, ask, bought, spent):
    async with open_agent(max_cost_per_day="0.002") as agent:
        answers = await asyncio.gather(*(ask(agent) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(answer, BudgetExceeded) for answer in answers) == 4
    assert [purchase.state for purchase in await bought()] == ["paid", "paid"]
    assert spent() == 2 * PRICE


@pytest.mark.parametrize("fault", ["lose", "break"])
async def test_a_lost_answer_is_asked_for_again_with_the_same_signature(
    open_agent, ask, bought, spent, proxy, fault
):
    proxy.faults = [fault]
    async with open_agent() as agent:
        answer = await ask(agent, proxy.url)
    assert answer.status_code == 200
    assert len(proxy.signatures) == 2
    assert len(set(proxy.signatures)) == 1
    assert [purchase.state for purchase in await bought()] == ["paid"]
    assert spent() == PRICE


async def test_an_answer_lost_thrice_keeps_its_reservation_for_the_money_moved(
    open_agent, ask, bought, spent, proxy
):
    proxy.faults = ["lose", "lose", "lose"]
    async with open_agent() as agent:
        with pytest.raises(httpx.TransportError):
            await ask(agent, proxy.url)
    (purchase,) = await bought()
    assert (purchase.state, purchase.nonce is None) == ("reserved", False)
    assert spent() == PRICE


async def test_a_paid_request_that_is_refused_keeps_its_reservation_until_the_chain_is_asked(
    open_agent, ask, bought, spent, proxy
):
    proxy.faults = ["refuse"]
    async with open_agent() as agent:
        answer = await ask(agent, proxy.url)
    assert (answer.status_code, "tinybrain_cost" in answer.extensions) == (500, False)
    assert [purchase.state for purchase in await bought()] == ["reserved"]
    assert spent() == 0


async def test_what_is_reserved_counts_against_the_cap_of_the_day(open_agent, ask, bought, proxy):
    proxy.faults = ["refuse"]
    async with open_agent(max_cost_per_day="0.001") as agent:
        await ask(agent, proxy.url)
        with pytest.raises(BudgetExceeded):
            await ask(agent, proxy.url)


@pytest.fixture
def quoted(devnet):
    """A PAYMENT-REQUIRED header with the seller's terms, but for `changes`."""

    def build(**changes):
        terms = {
            "scheme": "exact",
            "network": "eip155:84532",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "amount": "1000",
            "pay_to": devnet.wallets.provider.address,
            "max_timeout_seconds": 300,
            "extra": {"name": "USDC", "version": "2"},
        }
        offer = PaymentRequirements(**terms | changes)
        return encode_payment_required_header(Challenge(x402_version=2, accepts=[offer]))

    return build


@pytest.mark.parametrize(
    "changes",
    [
        {"scheme": "upto"},
        {"network": "eip155:8453"},
        {"asset": STRANGER},
        {"pay_to": STRANGER},
        {"amount": "5001"},
        {"amount": "-1"},
        {"amount": "1e9"},
        {"max_timeout_seconds": 86_400},
    ],
)
async def test_terms_that_are_not_allowed_are_not_signed(
    open_agent, ask, bought, proxy, quoted, changes
):
    proxy.challenge = quoted(**changes)
    async with open_agent() as agent:
        with pytest.raises(UpstreamError):
            await ask(agent, proxy.url)
    assert (await bought(), proxy.signatures) == ([], [])


@pytest.mark.parametrize("header", ["", "garbage", "e30=", "A" * 60_000])
async def test_a_quote_that_cannot_be_read_is_not_signed(open_agent, ask, bought, proxy, header):
    proxy.challenge = header
    async with open_agent() as agent:
        with pytest.raises(UpstreamError, match="PAYMENT-REQUIRED"):
            await ask(agent, proxy.url)
    assert (await bought(), proxy.signatures) == ([], [])


@pytest.mark.parametrize("extra", [{"paymentFlow": "new"}, {"assetTransferMethod": "permit2"}])
async def test_a_purchase_that_cannot_be_signed_is_given_back(
    open_agent, ask, bought, proxy, quoted, extra
):
    proxy.challenge = quoted(extra={"name": "USDC", "version": "2"} | extra)
    async with open_agent() as agent:
        with pytest.raises(UpstreamError):
            await ask(agent, proxy.url)
    assert [purchase.state for purchase in await bought()] == ["released"]
    assert len(proxy.signatures) == 0
