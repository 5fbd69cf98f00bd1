"""Money for served answers: collected once, whatever fails on the way, or listed as a debt."""

import asyncio
import time
from dataclasses import replace

import prometheus_client
import pytest
from eth_account import Account
from sqlalchemy import select
from x402 import x402ClientSync
from x402.http.utils import encode_payment_signature_header
from x402.mechanisms.evm.exact import register_exact_evm_client

from tinybrain.config import load_settings
from tinybrain.devnet.token import MULTICALL3, mint
from tinybrain.devnet.wallets import private_key
from tinybrain.payments.chain import Chain
from tinybrain.payments.facilitators import HttpFacilitator, build_settler
from tinybrain.payments.merchant import Merchant, payload_of, requirements_of
from tinybrain.payments.records import AnswerRecord, Charge
from tinybrain.payments.schema import payments, purchases
from tinybrain.payments.settlement import Settler
from tinybrain.telemetry.metrics import Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters

pytestmark = pytest.mark.chain
NOBODY = "http://127.0.0.1:1"
COMPLETED = AnswerRecord(outcome="completed")
PAY_TO = Account.create().address
WORDS = {
    "TransferWithAuthorization": ["address from", "address to", "uint256 value",
                                  "uint256 validAfter", "uint256 validBefore", "bytes32 nonce"],
    "CancelAuthorization": ["address authorizer", "bytes32 nonce"],
}  # fmt: skip
AGGREGATE = {
    "type": "function",
    "name": "aggregate",
    "stateMutability": "payable",
    "outputs": [],
    "inputs": [
        {
            "name": "calls",
            "type": "tuple[]",
            "components": [
                {"name": "target", "type": "address"},
                {"name": "callData", "type": "bytes"},
            ],
        }
    ],
}


@pytest.fixture(autouse=True)
def _now(clock):
    clock.now = time.time()


@pytest.fixture(scope="module")
def settings(chain):
    return load_settings(
        network="eip155:84532",
        rpc_url=chain.url,
        pay_to=PAY_TO,
        facilitator="own",
        gas_private_key=private_key(chain.wallets.gas),
    )


@pytest.fixture(scope="module")
def facilitator(settings):
    """One wallet belongs to one process: its nonces are kept in one place."""
    return build_settler(settings)


@pytest.fixture
def open_settler(settings, ledger, clock, facilitator):
    def build(facilitator=facilitator, rpc_url=settings.rpc):
        return Settler(
            ledger,
            facilitator,
            Chain(rpc_url, settings.token.address),
            Metrics(PrometheusMeters(prometheus_client.CollectorRegistry())),
            answer_timeout_s=settings.answer_timeout_s,
            clock=clock,
        )

    return build


@pytest.fixture
def settler(open_settler):
    return open_settler()


@pytest.fixture
def payer(chain):
    return chain.new_wallet()


@pytest.fixture
def earned(chain):
    before = chain.balance(PAY_TO)
    return lambda: chain.balance(PAY_TO) - before


@pytest.fixture
async def served(settings, ledger, new_answer, payer):
    """A payment of an answer that was delivered."""
    merchant = Merchant(settings, facilitator=None)
    client = x402ClientSync()
    register_exact_evm_client(client, payer)
    payload = client.create_payment_payload(merchant.challenge("/", "payment_required"))
    header = encode_payment_signature_header(payload)
    answer = new_answer()
    await ledger.begin(answer, merchant.identify(header, request_hash="0" * 64))
    await ledger.finish(answer.id, COMPLETED, charge=Charge.YES)
    return await ledger.payment_of(answer.id)


@pytest.fixture
def row(database, served):
    """The payment as it stands now."""

    async def read():
        async with database.read() as connection:
            return (await connection.execute(select(payments))).one()

    return read


@pytest.fixture
def sign(settings):
    """Signs one of EIP-3009's messages; its values and the signature, as the token takes them."""

    def build(wallet, kind, **message):
        types = [dict(zip(("type", "name"), word.split(), strict=True)) for word in WORDS[kind]]
        token = settings.token
        domain = {
            "name": token.name,
            "version": token.version,
            "chainId": 84532,
            "verifyingContract": token.address,
        }
        signed = wallet.sign_typed_data(domain, {kind: types}, message)
        return [*(message[word["name"]] for word in types), signed.signature]

    return build


@pytest.fixture
def transfer(chain, sign, served, payer):
    """The payer's authorization of the served payment; `changes` make another of it."""

    def call(**changes):
        authorization = served.payload["payload"]["authorization"]
        numbers = {name: int(authorization[name]) for name in ("validAfter", "validBefore")}
        message = {**authorization, **numbers, "value": served.amount, **changes}
        arguments = sign(payer, "TransferWithAuthorization", **message)
        return chain.token.functions.transferWithAuthorization(*arguments)

    return call


@pytest.fixture
def send(chain):
    """Sends a transaction; its hash."""

    def send(call, wallet):
        count = chain.web3.eth.get_transaction_count(wallet.address)
        built = call.build_transaction({"from": wallet.address, "nonce": count})
        raw = wallet.sign_transaction(built).raw_transaction
        receipt = chain.web3.eth.wait_for_transaction_receipt(
            chain.web3.eth.send_raw_transaction(raw)
        )
        assert receipt["status"] == 1
        return receipt["transactionHash"].to_0x_hex()

    return send


async def test_a_served_payment_is_settled_with_the_transaction_of_the_chain(
    settler, chain, row, earned
):
    assert await settler.drain() == 1
    settled = await row()
    assert (settled.state, settled.attempts, settled.note) == ("settled", 1, None)
    assert chain.web3.eth.get_transaction_receipt(settled.transaction)["status"] == 1
    assert earned() == 10_000
    assert await settler.drain() == 0


async def test_all_who_ask_at_once_settle_once(settler, served, row, earned):
    asked = [settler.settle_answer(served.answer_id) for _ in range(3)]
    await asyncio.gather(settler.drain(), *asked, settler.drain())
    assert ((await row()).state, (await row()).attempts) == ("settled", 1)
    assert earned() == 10_000


async def test_an_answer_without_a_payment_has_no_outcome(settler):
    assert await settler.settle_answer("ans_of_an_operator") is None


async def test_a_facilitator_that_is_away_is_tried_again_later(
    settler, open_settler, clock, row, earned
):
    away = HttpFacilitator(NOBODY)
    await open_settler(away).drain()
    await away.aclose()
    assert ((await row()).state, "did not answer" in (await row()).note) == ("served", True)
    assert await settler.drain() == 0
    clock.now += 5
    await settler.drain()
    assert ((await row()).state, earned()) == ("settled", 10_000)


async def test_without_a_word_from_the_chain_nothing_is_concluded(open_settler, clock, row):
    away = HttpFacilitator(NOBODY)
    settler = open_settler(away, rpc_url=NOBODY)
    clock.now += 10_000
    await settler.drain()
    await away.aclose()
    assert ((await row()).state, "chain" in (await row()).note) == ("served", True)


async def test_an_authorization_that_somebody_else_submitted_counts_as_paid(
    settler, chain, transfer, send, row, earned
):
    transaction = send(transfer(), chain.new_wallet(dollars=0))
    await settler.drain()
    assert ((await row()).state, (await row()).transaction) == ("settled", transaction)
    assert earned() == 10_000


async def test_a_cancelled_authorization_is_a_debt(
    settler, chain, sign, send, served, payer, row, receipts
):
    arguments = sign(payer, "CancelAuthorization", authorizer=payer.address, nonce=served.nonce)
    send(chain.token.functions.cancelAuthorization(*arguments), payer)
    await settler.drain()
    assert ((await row()).state, "cancelled" in (await row()).note) == ("debt", True)
    told = await receipts.statistics(since_ms=0)
    assert told["payments"] == {"debt": {"count": 1, "amount": 10_000}}


async def test_a_nonce_spent_on_another_transfer_is_a_debt(
    settler, transfer, send, payer, row, earned
):
    send(transfer(to=payer.address), payer)
    await settler.drain()
    assert ((await row()).state, earned()) == ("debt", 0)


async def test_a_smaller_payment_under_the_same_nonce_is_a_debt(
    settler, transfer, send, payer, row
):
    send(transfer(value=1), payer)
    await settler.drain()
    assert (await row()).state == "debt"


async def test_one_transfer_does_not_pay_for_two_nonces_of_a_transaction(
    settler, chain, transfer, send, payer, row, earned
):
    elsewhere, here = transfer(to=payer.address), transfer(nonce="0x" + "7" * 64)
    calls = [(chain.token.address, call.build_transaction({"gas": 1})["data"])
             for call in (elsewhere, here)]  # fmt: skip
    batch = chain.web3.eth.contract(MULTICALL3, abi=[AGGREGATE])
    send(batch.functions.aggregate(calls), payer)
    await settler.drain()
    assert earned() == 10_000
    assert (await row()).state == "debt"


async def test_a_payer_who_spent_the_money_pays_when_there_is_some_again(
    settler, chain, send, payer, clock, row
):
    send(chain.token.functions.transfer(chain.wallets.provider.address, 1_000_000), payer)
    await settler.drain()
    assert ((await row()).state, "insufficient" in (await row()).note) == ("served", True)
    mint(chain.web3, chain.token, payer.address, 10_000)
    clock.now += 5
    await settler.drain()
    assert (await row()).state == "settled"


async def test_a_payer_who_stays_without_money_owes_once_the_authorization_expired(
    settler, chain, send, payer, clock, row
):
    send(chain.token.functions.transfer(chain.wallets.provider.address, 1_000_000), payer)
    clock.now += 361
    await settler.drain()
    assert ((await row()).state, "expired" in (await row()).note) == ("debt", True)


async def test_killed_before_it_was_sent_a_payment_is_settled_after_the_restart(
    settler, open_settler, ledger, clock, served, row, earned
):
    await ledger.take(served.id)
    assert await settler.drain() == 0
    restarted = open_settler()
    await restarted.recover()
    await restarted.drain()
    clock.now += 5
    await restarted.drain()
    assert ((await row()).state, earned()) == ("settled", 10_000)


async def test_killed_after_it_was_sent_a_payment_is_found_on_the_chain(
    open_settler, ledger, facilitator, served, row, earned
):
    await ledger.take(served.id)
    sent = await facilitator.settle(
        payload_of(served.payload), requirements_of(served.requirements)
    )
    restarted = open_settler()
    await restarted.recover()
    await restarted.drain()
    assert ((await row()).state, (await row()).transaction) == ("settled", sent.transaction)
    assert earned() == 10_000


async def test_an_answer_that_nobody_finished_is_released(
    settler, ledger, clock, new_answer, new_payment
):
    await ledger.begin(new_answer(), new_payment())
    await settler.tidy()
    assert (await ledger.payment_of(new_answer().id)).state == "claimed"
    clock.now += 151
    await settler.tidy()
    assert (await ledger.payment_of(new_answer().id)).state == "released"


@pytest.fixture
def bought(ledger, database, new_purchase, served):
    """A purchase that was signed for with the authorization of `served`."""

    async def build(nonce=served.nonce):
        purchase = replace(
            new_purchase(10_000), payer=served.payer, pay_to=served.pay_to, asset=served.asset
        )
        purchase_id = await ledger.reserve(purchase, day_cap=10_000)
        await ledger.signed(purchase_id, nonce=nonce, valid_before=served.valid_before)

    return build


@pytest.fixture
def purchase(database):
    async def read():
        async with database.read() as connection:
            return (await connection.execute(select(purchases))).one()

    return read


async def test_a_purchase_whose_answer_was_lost_is_found_on_the_chain(
    settler, chain, transfer, send, clock, bought, purchase
):
    await bought()
    transaction = send(transfer(), chain.new_wallet(dollars=0))
    await settler.tidy()
    assert (await purchase()).state == "reserved"
    clock.now += 361
    await settler.tidy()
    assert ((await purchase()).state, (await purchase()).transaction) == ("paid", transaction)


async def test_a_purchase_that_was_never_collected_is_released_when_it_expired(
    settler, clock, bought, purchase
):
    await bought(nonce="0x" + "8" * 64)
    clock.now += 301
    await settler.tidy()
    assert (await purchase()).state == "reserved"  # the chain's clock may lag
    clock.now += 60
    await settler.tidy()
    assert (await purchase()).state == "released"


async def test_a_node_that_lags_is_no_proof_that_a_payment_was_cancelled(
    settler, served, ledger, row, transfer, send, chain, earned, monkeypatch
):
    """Used on the chain, and no log yet: as between two nodes behind one address."""
    await ledger.take(served.id)
    send(transfer(), chain.new_wallet(dollars=0))
    with monkeypatch.context() as lagging:
        lagging.setattr(settler._chain._web3.eth, "get_logs", lambda _: [])
        await settler.recover()
        await settler.drain()
    assert (await row()).state == "served"  # to be looked at again
    await settler.settle_answer(served.answer_id)
    assert ((await row()).state, earned()) == ("settled", 10_000)


async def test_a_cancelled_request_to_settle_does_not_stop_the_settlement(settler, served, row):
    asking = asyncio.create_task(settler.settle_answer(served.answer_id))
    for _ in range(1000):
        await asyncio.sleep(0.001)
        if (await row()).state == "settling":
            break
    asking.cancel()
    await asyncio.gather(*settler._under_way.values())
    assert (await row()).state == "settled"


async def test_two_who_ask_at_once_get_the_same_outcome(settler, served, earned):
    first, second = await asyncio.gather(
        settler.settle_answer(served.answer_id), settler.settle_answer(served.answer_id)
    )
    assert first == second
    assert first.state == "settled"
    assert earned() == 10_000
