"""The agent pays quotes it may pay, once, and never more than its caps."""

import asyncio
import base64
import contextlib
import http.server
import threading
import time

import httpx
import prometheus_client
import pytest
from eth_account import Account
from sqlalchemy import select
from x402 import x402Client
from x402.http.utils import encode_payment_required_header, encode_payment_response_header
from x402.schemas import PaymentError, PaymentRequirements, SettleResponse
from x402.schemas import PaymentRequired as Challenge

from tinybrain.config import load_settings
from tinybrain.devnet.chain import connect
from tinybrain.devnet.token import place_usdc
from tinybrain.devnet.upstream import ALIAS, PRICE
from tinybrain.devnet.wallets import private_key
from tinybrain.errors import BudgetExceeded, LedgerUnavailable, UpstreamError
from tinybrain.payments.agent import PayingTransport
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.records import Limits
from tinybrain.payments.schema import purchases
from tinybrain.telemetry.metrics import Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters

pytestmark = pytest.mark.chain
ORDER = {"model": ALIAS, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
STRANGER = Account.create().address
NESTED = base64.b64encode(b"[" * 40_000).decode()


@pytest.fixture
def database_url(request, tmp_path):
    """SQLite; a test whose subject is the database asks for PostgreSQL too, indirectly."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
        return
    postgres = request.getfixturevalue("postgres")
    postgres.create_database("ledger", template="template")
    yield postgres.url("ledger")
    postgres.drop_database("ledger")


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


async def ask(agent, answer_id="ans_1"):
    """Asks for one answer."""
    extensions = {"tinybrain_answer_id": answer_id}
    return await agent.post("chat/completions", json=ORDER, extensions=extensions)


class Proxy(http.server.ThreadingHTTPServer):
    """Stands before the seller.

    What `faults` holds happens to the next paid requests; `unpaid` happens to all others.
    """

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), _Forward)
        self.url = f"http://127.0.0.1:{self.server_port}/api/v1"
        self.target = target.removesuffix("/api/v1")
        self.challenge = None
        self.unpaid = None
        self.faults = []
        self.signatures = []


class _Forward(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signature = self.headers["PAYMENT-SIGNATURE"]
        self.server.signatures += [signature] if signature else []
        if self.server.challenge is not None:
            self._answer(402, {"PAYMENT-REQUIRED": self.server.challenge}, b"")
        elif signature:
            fault = self.server.faults.pop() if self.server.faults else None
            self._paid(body, signature, fault)
        elif self.server.unpaid is not None:
            with contextlib.suppress(OSError):  # the agent hangs up
                self.server.unpaid(self, body)
        else:
            sent = self.forward(body)
            self._answer(sent.status_code, _payment_headers(sent), sent.content)

    def forward(self, body, headers=None):
        url = self.server.target + self.path
        return httpx.post(url, content=body, headers=headers, timeout=30)

    def _paid(self, body, signature, fault):
        if isinstance(fault, tuple):
            self._answer(*fault)
            return
        sent = self.forward(body, {"PAYMENT-SIGNATURE": signature})
        if fault == "lose":
            return
        headers = _payment_headers(sent) | (fault if isinstance(fault, dict) else {})
        self._answer(503 if fault == "break" else sent.status_code, headers, sent.content)

    def _answer(self, status, headers, body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def _payment_headers(response):
    return {name.upper(): value for name, value in response.headers.items() if "payment" in name}


REFUSAL = (500, {}, b"")


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


async def test_an_answer_is_bought_for_its_quote(open_agent, bought, spent, web3):
    async with open_agent() as agent:
        answer = await ask(agent)
    assert answer.status_code == 200
    (purchase,) = await bought()
    assert (purchase.state, purchase.amount, purchase.answer_id) == ("paid", PRICE, "ans_1")
    assert answer.extensions["tinybrain_cost"] == spent() == PRICE
    assert answer.extensions["tinybrain_transaction"] == purchase.transaction
    assert web3.eth.get_transaction_receipt(purchase.transaction)["status"] == 1


async def test_what_is_free_passes_through(open_agent, bought):
    async with open_agent() as agent:
        answer = await agent.get("models")
    assert (answer.status_code, await bought()) == (200, [])


async def test_a_quote_above_the_cap_of_a_call_is_refused(open_agent, bought, spent):
    async with open_agent(max_cost_per_call="0.000999") as agent:
        with pytest.raises(BudgetExceeded, match="MAX_COST_PER_CALL"):
            await ask(agent)
    assert (await bought(), spent()) == ([], 0)


async def test_a_seller_other_than_the_pinned_one_is_not_paid(open_agent, bought, spent):
    async with open_agent(upstream_pay_to=STRANGER) as agent:
        with pytest.raises(UpstreamError) as caught:
            await ask(agent)
    assert caught.value.code == "upstream_payment_terms"
    assert (await bought(), spent()) == ([], 0)


async def test_the_cap_of_the_day_holds_however_many_ask_at_once(open_agent, bought, spent):
    async with open_agent(max_cost_per_day="0.002") as agent:
        answers = await asyncio.gather(*(ask(agent) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(answer, BudgetExceeded) for answer in answers) == 4
    assert [purchase.state for purchase in await bought()] == ["paid", "paid"]
    assert spent() == 2 * PRICE


@pytest.mark.parametrize("fault", ["lose", "break"])
async def test_a_lost_answer_is_asked_for_again_with_the_same_signature(
    open_agent, bought, spent, proxy, fault
):
    proxy.faults = [fault]
    async with open_agent(upstream_url=proxy.url) as agent:
        answer = await ask(agent)
    assert answer.status_code == 200
    assert len(proxy.signatures) == 2
    assert len(set(proxy.signatures)) == 1
    assert [purchase.state for purchase in await bought()] == ["paid"]
    assert spent() == PRICE


async def test_an_answer_lost_thrice_keeps_its_reservation_for_the_money_moved(
    open_agent, bought, spent, proxy
):
    proxy.faults = ["lose", "lose", "lose"]
    async with open_agent(upstream_url=proxy.url) as agent:
        with pytest.raises(httpx.TransportError):
            await ask(agent)
    (purchase,) = await bought()
    assert (purchase.state, purchase.nonce is None) == ("reserved", False)
    assert spent() == PRICE


async def test_a_paid_request_that_is_refused_keeps_its_reservation_until_the_chain_is_asked(
    open_agent, bought, spent, proxy
):
    proxy.faults = [REFUSAL]
    async with open_agent(upstream_url=proxy.url) as agent:
        answer = await ask(agent)
    assert (answer.status_code, "tinybrain_cost" in answer.extensions) == (500, False)
    assert [purchase.state for purchase in await bought()] == ["reserved"]
    assert spent() == 0


async def test_what_is_reserved_counts_against_the_cap_of_the_day(open_agent, bought, proxy):
    proxy.faults = [REFUSAL]
    async with open_agent(upstream_url=proxy.url, max_cost_per_day="0.001") as agent:
        await ask(agent)
        with pytest.raises(BudgetExceeded):
            await ask(agent)


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
        return encode_payment_required_header(Challenge(x402_version=2, accepts=accepts))

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
        {"amount": "1e3"},
        {"amount": "0x10"},
        {"amount": "0"},
        {"amount": "\u0661"},  # a digit, in Arabic
        {"amount": "9" * 5_000},
        {"max_timeout_seconds": 86_400},
        {"max_timeout_seconds": 0},
        {"pay_to": "0x00"},
        {"extra": {"name": "Another Coin", "version": "2"}},
        {"extra": {"name": {}, "version": []}},
        {"extra": {"paymentFlow": "escrow"}},
        {"extra": {"assetTransferMethod": "permit2"}},
    ],
)
async def test_terms_that_are_not_allowed_are_not_signed(
    open_agent, bought, proxy, quoted, changes
):
    proxy.challenge = quoted(**changes)
    async with open_agent(upstream_url=proxy.url) as agent:
        with pytest.raises(UpstreamError):
            await ask(agent)
    assert (await bought(), proxy.signatures) == ([], [])


@pytest.mark.parametrize(
    "header", ["", "garbage", "e30=", "W10=", "bnVsbA==", "A" * 60_000, NESTED]
)
async def test_a_quote_that_cannot_be_read_is_not_signed(open_agent, bought, proxy, header):
    proxy.challenge = header
    async with open_agent(upstream_url=proxy.url) as agent:
        with pytest.raises(UpstreamError, match="PAYMENT-REQUIRED"):
            await ask(agent)
    assert (await bought(), proxy.signatures) == ([], [])


async def test_a_purchase_that_cannot_be_signed_is_given_back(
    open_agent, bought, proxy, monkeypatch
):
    async def refuse(*_):
        raise PaymentError("no")

    monkeypatch.setattr(x402Client, "create_payment_payload", refuse)
    async with open_agent(upstream_url=proxy.url) as agent:
        with pytest.raises(UpstreamError) as caught:
            await ask(agent)
    assert caught.value.code == "upstream_payment_terms"
    assert [purchase.state for purchase in await bought()] == ["released"]
    assert proxy.signatures == []


async def test_the_cheapest_of_many_allowed_offers_is_taken(open_agent, bought, proxy, quoted):
    offers = [{"amount": str(amount)} for amount in (4_000, 3_000, 3_500)] * 20
    proxy.challenge = quoted(*offers, {"amount": "1", "pay_to": STRANGER})
    async with open_agent(upstream_url=proxy.url) as agent:
        await ask(agent)
    assert [purchase.amount for purchase in await bought()] == [3_000]


async def test_a_second_402_after_the_payment_is_not_paid(open_agent, bought, proxy, quoted):
    proxy.challenge = quoted()
    async with open_agent(upstream_url=proxy.url) as agent:
        assert (await ask(agent)).status_code == 402
    assert len(proxy.signatures) == 1
    assert [purchase.state for purchase in await bought()] == ["reserved"]


async def test_the_signature_is_noted_before_it_is_sent(open_agent, bought, proxy, monkeypatch):
    async def fail(*_, **__):
        raise LedgerUnavailable("The ledger cannot be written: it is gone.")

    monkeypatch.setattr(Ledger, "signed", fail)
    async with open_agent(upstream_url=proxy.url) as agent:
        with pytest.raises(LedgerUnavailable):
            await ask(agent)
    assert proxy.signatures == []


async def test_without_a_setting_the_host_is_paid_at_its_first_address_only(
    open_agent, bought, proxy, quoted
):
    async with open_agent(upstream_url=proxy.url, upstream_pay_to=None) as agent:
        assert (await ask(agent)).status_code == 200
        proxy.challenge = quoted({"pay_to": STRANGER})
        with pytest.raises(UpstreamError, match="so far it was paid at"):
            await ask(agent)
    assert [purchase.state for purchase in await bought()] == ["paid"]
    assert len(proxy.signatures) == 1


async def test_no_other_host_is_paid_even_after_a_redirect(open_agent, bought, open_proxy, quoted):
    first, other = open_proxy(), open_proxy()
    other.challenge = quoted()
    first.unpaid = lambda handler, _: handler._answer(
        307, {"Location": f"{other.url}/chat/completions"}, b""
    )
    async with open_agent(upstream_url=first.url, follow_redirects=True) as agent:
        with pytest.raises(UpstreamError, match="another host"):
            await ask(agent)
    assert (await bought(), other.signatures) == ([], [])


async def test_a_paid_request_follows_no_redirect(open_agent, bought, proxy):
    proxy.faults = [(307, {"Location": f"{proxy.url}/chat/completions"}, b"")]
    async with open_agent(upstream_url=proxy.url, follow_redirects=True) as agent:
        with pytest.raises(UpstreamError, match="not followed"):
            await ask(agent)
    assert len(proxy.signatures) == 1
    assert [purchase.state for purchase in await bought()] == ["reserved"]


async def test_a_402_that_drips_is_given_up(open_agent, bought, proxy):
    def drip(handler, _):
        handler.wfile.write(b"HTTP/1.1 402 Payment Required\r\nX-Slow: ")
        while True:
            handler.wfile.write(b"a")
            time.sleep(0.02)

    proxy.unpaid = drip
    async with open_agent(upstream_url=proxy.url, quote_timeout_s=0.3) as agent:
        with pytest.raises(UpstreamError, match="did not say within"):
            await ask(agent)
    assert await bought() == []


async def test_a_402_with_an_endless_body_is_paid_without_reading_it(open_agent, bought, proxy):
    def endless(handler, body):
        handler.send_response(402)
        for name, value in _payment_headers(handler.forward(body)).items():
            handler.send_header(name, value)
        handler.end_headers()
        while True:
            handler.wfile.write(b"a" * 4_096)

    proxy.unpaid = endless
    async with open_agent(upstream_url=proxy.url) as agent:
        assert (await ask(agent)).status_code == 200
    assert [purchase.state for purchase in await bought()] == ["paid"]


@pytest.mark.parametrize("transaction", ["", "x" * 10_000, "0x12"])
async def test_a_receipt_without_a_transaction_leaves_it_to_the_chain(
    open_agent, bought, proxy, transaction
):
    told = SettleResponse(success=True, transaction=transaction, network="eip155:84532")
    proxy.faults = [{"PAYMENT-RESPONSE": encode_payment_response_header(told)}]
    async with open_agent(upstream_url=proxy.url) as agent:
        assert (await ask(agent)).status_code == 200
    assert [purchase.state for purchase in await bought()] == ["reserved"]


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("cap", ["max_cost_per_hour", "max_cost_per_day", "max_cost_per_provider"])
async def test_ten_replicas_asking_at_once_do_not_overspend_by_one_unit(
    open_agent, bought, spent, database_url, cap
):
    databases = await asyncio.gather(*(Database.open(database_url) for _ in range(10)))
    agents = [open_agent(database, **{cap: "0.003999"}) for database in databases]
    answers = await asyncio.gather(*map(ask, agents), return_exceptions=True)
    for opened in (*agents, *databases):
        await (opened.aclose() if opened in agents else opened.close())
    refused = [answer for answer in answers if isinstance(answer, BudgetExceeded)]
    assert len(refused) == 7
    assert all(cap.upper() in error.message for error in refused)
    assert [purchase.state for purchase in await bought()] == ["paid"] * 3
    assert spent() == 3 * PRICE


async def test_a_quote_that_leaves_no_margin_is_refused(
    open_agent, ledger, new_answer, bought, spent
):
    await ledger.begin(new_answer(1))
    async with open_agent(min_margin="0.009001") as agent:
        with pytest.raises(BudgetExceeded, match="MIN_MARGIN"):
            await ask(agent, new_answer(1).id)
    async with open_agent(min_margin="0.009") as agent:
        assert (await ask(agent, new_answer(1).id)).status_code == 200
    assert (len(await bought()), spent()) == (1, PRICE)
