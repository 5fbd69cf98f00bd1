"""Many at once want what only one may have, across two ingress replicas and two settlers."""

import asyncio
import random

import pytest
from prometheus_client import CollectorRegistry

from tests.chaos.load import PRICE, Caller, Question
from tests.chaos.proof import proof_of
from tests.chaos.world import WALLET_USDC
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.facilitators import OwnFacilitator
from tinybrain.payments.ledger import Ledger, TransactionBook
from tinybrain.payments.refunding import RefundSigner
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.settlement import Settler
from tinybrain.payments.wallet import HotWallet
from tinybrain.telemetry.metrics import Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.serve,
    pytest.mark.chain,
    pytest.mark.timeout(900),
]
HELLO = b'{"model":"tinychat","messages":[{"role":"user","content":"Hello, who are you?"}]}'
"""Answered by the small model, sent whole."""
SECOND_SETTLER_PERIOD_S = 0.1
PATIENCE_S = 120  # hundreds at once take their time on a busy machine


@pytest.fixture
async def proof(world):
    await world.healed()
    async with proof_of(world) as proof:
        yield proof


@pytest.fixture
def new_caller(world, proof):
    def build(behaviour=None):
        (wallet,) = world.new_wallets(1)
        return Caller(proof.http, world, wallet, behaviour, random.Random(1), patience_s=PATIENCE_S)

    return build


async def copies(caller, question, count):
    """Send one request many times at once; returns the replies."""
    twins = [Question(question.path, question.body, question.headers, None) for _ in range(count)]
    return await asyncio.gather(*(caller.send(twin) for twin in twins))


async def paid_by(caller, proof):
    """What has left its wallet once all is settled; atomic USDC."""
    assert await proof.closed_for(caller.address, wait_s=PATIENCE_S) == []
    return WALLET_USDC - await proof.chain.balance(caller.address)


@pytest.mark.parametrize("count", [8, 64, 500])
async def test_one_authorization_buys_one_answer_however_many_use_it_at_once(
    proof, new_caller, count
):
    caller = new_caller()
    question = await caller.paid_question()
    question.body = HELLO
    replies = await copies(caller, question, count)
    assert {reply.status for reply in replies} == {200}
    assert len({(reply.answer_id, reply.text) for reply in replies}) == 1

    question.body = HELLO.replace(b"Hello", b"Good morning")
    assert (await caller.send(question)).status == 409

    assert await paid_by(caller, proof) == PRICE


async def test_a_tab_for_ten_answers_gives_ten_to_two_hundred_questions_at_once(proof, new_caller):
    caller = new_caller()
    tab_id = await caller.open_prepaid_tab()
    questions = [caller.keyed_question(caller.tab_token) for _ in range(200)]
    for question in questions:
        question.body = HELLO
    replies = await asyncio.gather(*map(caller.send, questions))
    assert sorted(reply.status for reply in replies) == [200] * 10 + [402] * 190

    await caller.close_prepaid_tab(tab_id)
    assert await paid_by(caller, proof) == 10 * PRICE
    assert await proof.faults_of(caller) == []


async def test_a_second_settler_started_by_mistake_settles_nothing_twice(world, proof, new_caller):
    async def asks_three_times(caller):
        for _ in range(3):
            await caller.ask(await caller.paid_question())

    callers = [new_caller(asks_three_times) for _ in range(20)]
    second = asyncio.create_task(_settle_beside(world))
    try:
        await asyncio.gather(*(caller.run() for caller in callers))
        for caller in callers:
            assert await paid_by(caller, proof) == 3 * PRICE
            assert await proof.faults_of(caller) == []
    finally:
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
    assert await proof.differences() == []


async def _settle_beside(world):
    """What the Settlement replica does, in this process, with the same ledger and gas key."""
    settings = world.settings
    database, rpc = await Database.open(settings.ledger), Rpc(settings.rpc)
    store = TransactionBook(database, settings.network)
    key = settings.gas_private_key.get_secret_value()
    wallet = HotWallet(key, rpc, settings.network, store)
    settler = Settler(
        Ledger(database),
        OwnFacilitator(rpc, wallet, settings.network, settings.token.address),
        Chain(rpc, settings.token.address),
        Metrics(PrometheusMeters(CollectorRegistry())),
        RefundSigner(settings),
        wallet=wallet,
    )
    try:
        await settler.recover()
        while True:
            await settler.drain()
            await asyncio.sleep(SECOND_SETTLER_PERIOD_S)
    finally:
        await wallet.aclose()
        await rpc.aclose()
        await database.close()
