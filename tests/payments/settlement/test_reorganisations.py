"""A reorganisation of the chain loses no money: what it undid is settled again."""

import time

import pytest
from x402.schemas import SettleResponse

from tests.payments.settling import NETWORK, LosesAnswers
from tinybrain.payments.records import Collected
from tinybrain.payments.reorganisations import Reorganisations

pytestmark = pytest.mark.chain
CONFIRMATIONS = 4
DEPTH = 3


@pytest.fixture
def clock(clock):
    """The real time, which the chain here keeps to."""
    clock.now = time.time()
    return clock


@pytest.fixture
def reorganisations(merchant):
    return Reorganisations(
        merchant.ledger, merchant.reads, merchant.metrics, confirmations=CONFIRMATIONS
    )


@pytest.fixture
async def settled(merchant, settler, payer):
    """A settled payment, on whose block two others stand."""
    row = await merchant.sell(payer)
    await settler.drain()
    merchant.anvil("mine", hex(DEPTH - 1))
    return await merchant.row(row)


@pytest.fixture
def row(merchant, settled):
    return lambda: merchant.row(settled)


def raw(chain, transaction):
    answer = chain.web3.provider.make_request("eth_getRawTransactionByHash", [transaction])
    return answer["result"]


async def test_a_transfer_is_final_when_enough_blocks_stand_on_it(reorganisations, merchant, row):
    await reorganisations.look()
    assert not (await row()).final
    merchant.anvil("mine", hex(CONFIRMATIONS))
    await reorganisations.look()
    assert ((await row()).final, (await row()).state) == (True, "settled")


async def test_a_transfer_whose_block_was_not_told_is_final_no_sooner(
    reorganisations, merchant, payer
):
    row = await merchant.sell(payer)
    await merchant.ledger.take([row.id])
    transaction = merchant.send(merchant.transfer(payer, row))
    await merchant.ledger.settled([Collected(row.id, transaction, block=None)])
    await reorganisations.look()
    assert ((await merchant.row(row)).state, (await merchant.row(row)).final) == ("settled", False)
    merchant.anvil("mine", hex(CONFIRMATIONS))
    await reorganisations.look()
    assert (await merchant.row(row)).final


async def test_a_transfer_that_a_reorganisation_dropped_is_settled_again(
    reorganisations, settler, merchant, settled, row, clock
):
    merchant.anvil("reorg", DEPTH, [])
    assert merchant.balance() == 0
    merchant.anvil("mine", hex(CONFIRMATIONS))
    await reorganisations.look()
    assert ((await row()).state, (await row()).transaction) == ("settling", None)
    await settler.drain()
    clock.now += 5
    await settler.drain()
    again = await row()
    assert (again.state, again.transaction != settled.transaction) == ("settled", True)
    assert merchant.balance() == 10_000
    merchant.anvil("mine", hex(CONFIRMATIONS))
    await reorganisations.look()
    assert (await row()).final


async def test_a_transfer_that_was_mined_in_another_block_is_noted_there(
    reorganisations, chain, merchant, settled, row
):
    merchant.anvil("reorg", DEPTH, [[raw(chain, settled.transaction), 1]])
    merchant.anvil("mine", hex(CONFIRMATIONS))
    await reorganisations.look()
    moved = await row()
    assert (moved.transaction, moved.block) == (settled.transaction, settled.block + 1)
    assert (moved.state, moved.attempts, merchant.balance()) == ("settled", 1, 10_000)
    await reorganisations.look()
    assert (await row()).final


async def test_a_transfer_that_was_mined_in_another_transaction_is_noted_with_it(
    reorganisations, merchant, payer, settled, row
):
    call = merchant.transfer(payer, settled)
    options = {"from": merchant.gas.address, "nonce": 0, "gas": 200_000}
    signed = merchant.gas.sign_transaction(call.build_transaction(options))
    merchant.anvil("reorg", DEPTH, [[signed.raw_transaction.to_0x_hex(), 0]])
    merchant.anvil("mine", hex(CONFIRMATIONS))
    await reorganisations.look()
    moved = await row()
    assert (moved.state, moved.transaction) == ("settled", signed.hash.to_0x_hex())
    assert moved.block == settled.block


async def test_a_payer_who_cancels_in_the_reorganised_chain_owes(
    reorganisations, settler, merchant, payer, settled, row
):
    merchant.anvil("reorg", DEPTH, [])
    merchant.send(merchant.transfer(payer, settled, to=payer.address))
    merchant.anvil("mine", hex(CONFIRMATIONS))
    await reorganisations.look()
    await settler.drain()
    assert ((await row()).state, merchant.balance()) == ("debt", 0)


async def test_a_refund_that_a_reorganisation_dropped_is_paid_again(
    reorganisations, settler, merchant, payer, clock
):
    refund = await merchant.overcharge(payer)
    merchant.anvil("mine", "0x8")
    await settler.drain()
    merchant.anvil("reorg", 1, [])
    merchant.anvil("mine", hex(CONFIRMATIONS))
    await reorganisations.look()
    assert (await merchant.row(refund)).state == "settling"
    await settler.drain()
    clock.now += 5
    await settler.drain()
    assert (merchant.balance(), merchant.balance(payer)) == (0, 1_000_000)
    assert (await merchant.row(refund)).state == "settled"


async def test_a_facilitator_that_only_claims_to_have_settled_is_found_out(
    reorganisations, settler, merchant, payer, clock
):
    row = await merchant.sell(payer)
    claim = SettleResponse(success=True, transaction="0x" + "7" * 64, network=NETWORK)
    await merchant.settler(LosesAnswers(merchant.facilitator, claim, works=False)).drain()
    assert (await merchant.row(row)).state == "settled"
    await reorganisations.look()
    await settler.drain()
    clock.now += 5
    await settler.drain()
    assert (await merchant.row(row)).transaction != claim.transaction
    assert merchant.balance() == 10_000


async def test_a_chain_that_is_away_undoes_nothing(reorganisations, merchant, row, monkeypatch):
    merchant.anvil("mine", hex(CONFIRMATIONS))
    monkeypatch.setattr(merchant.reads._rpc, "_url", "http://127.0.0.1:1")
    with pytest.raises(Exception, match="did not answer"):
        await reorganisations.look()
    assert ((await row()).state, (await row()).final) == ("settled", False)
