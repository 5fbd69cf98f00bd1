"""What nobody ends any more is ended; one chore that fails stops none of the others."""

import logging
import time
from dataclasses import replace

import pytest
from sqlalchemy import select

from tests.payments.settling import COMPLETED, NETWORK
from tinybrain.devnet.chain import control
from tinybrain.errors import Unauthorized
from tinybrain.payments.books import Books
from tinybrain.payments.chain import Chain
from tinybrain.payments.gas_watch import GasWatch
from tinybrain.payments.housekeeping import Housekeeping
from tinybrain.payments.records import Charge, NewAnswer, TabCharge
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.schema import purchases

pytestmark = pytest.mark.chain


@pytest.fixture
def housekeeping(merchant):
    return _housekeeping(merchant)


@pytest.fixture
def gas(merchant, clock):
    return GasWatch(merchant.wallet, merchant.levels, enough=500, clock=clock)


def _housekeeping(merchant, **changes):
    return Housekeeping(
        **{
            "settings": merchant.settings,
            "database": merchant.database,
            "ledger": merchant.ledger,
            "chain": merchant.reads,
            "metrics": merchant.metrics,
            "levels": merchant.levels,
            "clock": merchant.clock,
        }
        | changes
    )


async def use(merchant, tab, price=10_000):
    """One answer on a tab."""
    answer = NewAnswer(f"ans_{time.monotonic_ns()}", "tab", "auto", price)
    await merchant.ledger.begin(answer, tab=TabCharge(tab.token_hash, "0" * 64))
    await merchant.ledger.finish(answer.id, COMPLETED, charge=Charge.YES)


async def test_an_answer_that_nobody_finished_is_released(housekeeping, merchant, payer, clock):
    answer_id = await merchant.begin(payer)
    await housekeeping.run()
    assert (await merchant.ledger.payment_of(answer_id)).state == "claimed"
    clock.now += 151
    await housekeeping.run()
    assert (await merchant.ledger.payment_of(answer_id)).state == "released"


@pytest.fixture
def buy(merchant, payer, new_purchase):
    """Reserves a purchase, signed with an authorization of the payer's; and that."""

    async def build():
        authorization, signature = merchant.authorize(payer)
        purchase = replace(
            new_purchase(10_000),
            asset=merchant.settings.token.address.lower(),
            payer=payer.address.lower(),
            pay_to=authorization.to.lower(),
        )
        purchase_id = await merchant.ledger.reserve(purchase)
        await merchant.ledger.signed(
            purchase_id, nonce=authorization.nonce, valid_before=authorization.valid_before
        )
        return authorization, signature

    return build


@pytest.fixture
def purchase(merchant, new_purchase):
    """The one purchase as it stands now."""

    async def read():
        async with merchant.database.read() as connection:
            return (await connection.execute(select(purchases))).one()

    return read


async def test_a_purchase_whose_answer_was_lost_is_found_on_the_chain(
    housekeeping, merchant, chain, buy, purchase, clock
):
    authorization, signature = await buy()
    call = chain.token.functions.transferWithAuthorization(
        *authorization.model_dump().values(), bytes.fromhex(signature[2:])
    )
    transaction = merchant.send(call)
    await housekeeping.run()
    assert (await purchase()).state == "reserved"
    clock.now += 361
    await housekeeping.run()
    assert ((await purchase()).state, (await purchase()).transaction) == ("paid", transaction)


async def test_a_purchase_that_was_never_collected_is_released_when_it_expired(
    housekeeping, merchant, buy, purchase
):
    await buy()
    merchant.pass_time(301)
    await housekeeping.run()
    assert (await purchase()).state == "reserved"  # the chain's clock may lag
    merchant.pass_time(60)
    await housekeeping.run()
    assert (await purchase()).state == "released"


async def test_a_false_hash_of_a_purchase_that_was_collected_is_put_right(
    housekeeping, merchant, chain, buy, purchase, clock
):
    authorization, signature = await buy()
    call = chain.token.functions.transferWithAuthorization(
        *authorization.model_dump().values(), bytes.fromhex(signature[2:])
    )
    transaction = merchant.send(call)
    await merchant.ledger.paid((await purchase()).id, transaction="0x" + "ab" * 32)
    clock.now += 361
    await housekeeping.run()
    row = await purchase()
    assert (row.state, row.final, row.transaction) == ("paid", True, transaction)


async def test_a_purchase_that_was_paid_by_the_sellers_word_alone_is_taken_back(
    housekeeping, merchant, buy, purchase
):
    await buy()
    await merchant.ledger.paid((await purchase()).id, transaction="0x" + "ab" * 32)
    merchant.pass_time(361)
    await housekeeping.run()
    assert (await purchase()).state == "released"
    balances = await Books(merchant.database).balances()
    assert all(account.debit == account.credit for account in balances)


async def test_an_idle_bar_tab_is_settled_from_its_deposit_and_the_rest_refunded(
    housekeeping, merchant, payer, clock
):
    tab = await merchant.open_tab(payer, "bar")
    await use(merchant, tab)
    await housekeeping.run()
    assert (await merchant.ledger.tab_by_id(tab.id)).state == "open"
    clock.now += 251  # its deposit must be settled before it expires
    await housekeeping.run()
    await merchant.settler().drain()
    await merchant.settler().drain()
    assert (await merchant.ledger.tab_by_id(tab.id)).state == "closed"
    assert (merchant.balance(), merchant.balance(payer)) == (10_000, 990_000)


async def test_an_idle_prepaid_tab_is_closed_and_what_is_left_refunded(merchant, payer, clock):
    tab = await merchant.open_tab(payer, "prepaid")
    await merchant.settler().drain()
    await use(merchant, tab)
    clock.now += 61
    soon = merchant.settings.model_copy(update={"tab_idle_s": 60})
    await _housekeeping(merchant, settings=soon).run()
    await merchant.settler().drain()
    assert (await merchant.ledger.tab_by_id(tab.id)).state == "closed"
    assert (merchant.balance(), merchant.balance(payer)) == (10_000, 990_000)


async def test_a_payer_whose_balance_no_longer_covers_the_deposit_loses_the_tab(
    housekeeping, merchant, chain, payer
):
    tab = await merchant.open_tab(payer, "bar")
    await use(merchant, tab)
    await housekeeping.run()
    assert (await merchant.ledger.tab_by_id(tab.id)).state == "open"
    drain = chain.token.functions.transfer(chain.wallets.provider.address, 900_001)
    merchant.send(drain, payer)
    await housekeeping.run()
    assert (await merchant.ledger.tab_by_id(tab.id)).state == "closing"


async def test_the_deposit_of_a_payer_who_drained_the_wallet_becomes_a_debt_of_what_was_used(
    housekeeping, merchant, chain, payer
):
    tab = await merchant.open_tab(payer, "bar")
    await use(merchant, tab)
    drain = chain.token.functions.transfer(chain.wallets.provider.address, 1_000_000)
    merchant.send(drain, payer)
    await housekeeping.run()
    merchant.pass_time(361)
    await merchant.settler().drain()
    (debt,) = await merchant.ledger.debts(payer.address.lower())
    assert (debt.owed, (await merchant.ledger.tab_by_id(tab.id)).state) == (10_000, "closed")


async def test_a_tab_with_an_answer_under_way_is_closed_later(housekeeping, merchant, chain, payer):
    tab = await merchant.open_tab(payer, "bar")
    answer = NewAnswer("ans_running", "tab", "auto", 10_000)
    await merchant.ledger.begin(answer, tab=TabCharge(tab.token_hash, "0" * 64))
    drain = chain.token.functions.transfer(chain.wallets.provider.address, 1_000_000)
    merchant.send(drain, payer)
    await housekeeping.run()
    assert (await merchant.ledger.tab_by_id(tab.id)).state == "open"
    with pytest.raises(Unauthorized):  # else one answer always under way would keep it open
        await merchant.ledger.begin(
            replace(answer, id="ans_next"), tab=TabCharge(tab.token_hash, "0" * 64)
        )
    await merchant.ledger.finish(answer.id, COMPLETED, charge=Charge.YES)
    await housekeeping.run()
    assert (await merchant.ledger.tab_by_id(tab.id)).state == "closing"


async def test_replies_are_forgotten_after_their_time(housekeeping, merchant, payer, clock):
    answer_id = await merchant.begin(payer)
    await merchant.ledger.finish(answer_id, COMPLETED, charge=Charge.YES, reply={"text": "hi"})
    await housekeeping.run()
    assert await merchant.ledger.reply_of(answer_id) == {"text": "hi"}
    clock.now += 3_601
    await housekeeping.run()
    assert await merchant.ledger.reply_of(answer_id) is None


async def test_one_chore_that_fails_stops_none_of_the_others(merchant, payer, clock, caplog):
    answer_id = await merchant.begin(payer)
    rpc = Rpc("http://127.0.0.1:1")
    cut_off = _housekeeping(merchant, chain=Chain(rpc, merchant.settings.token.address))
    cut_off._chores.insert(0, _broken)
    clock.now += 151
    await cut_off.run()
    await rpc.aclose()
    assert (await merchant.ledger.payment_of(answer_id)).state == "released"
    assert {"_broken", "open_books"} <= {word for r in caplog.records for word in r.args}


async def _broken():
    raise RuntimeError("a fault in this chore")


async def test_every_chore_of_a_round_is_done(housekeeping, merchant, payer, caplog):
    await merchant.begin(payer)
    await housekeeping.run()
    assert caplog.messages == []


async def test_with_nothing_to_do_the_ledger_is_not_written(
    housekeeping, merchant, payer, monkeypatch
):
    await merchant.open_tab(payer, "bar")
    await housekeeping.run()

    def write():
        raise AssertionError("written without a reason")

    monkeypatch.setattr(merchant.database, "write", write)
    await housekeeping.run()


# --- the backlog and the gas


async def test_the_age_of_the_oldest_unsettled_payment_is_measured(
    housekeeping, merchant, payer, clock
):
    await housekeeping.run()
    assert merchant.measured("tinybrain_oldest_unsettled_seconds") == 0
    await merchant.sell(payer)
    clock.now += 7
    await housekeeping.run()
    assert merchant.measured("tinybrain_oldest_unsettled_seconds") == pytest.approx(7, abs=0.01)


async def test_low_gas_is_measured_and_warned_of_once_and_then_every_hour(
    gas, merchant, chain, clock, caplog
):
    await gas.look()
    assert (gas.low, merchant.measured("tinybrain_gas_settlements_left") > 500) == (False, True)
    control(chain.web3, "setBalance", merchant.gas.address, hex(10**9))
    for minutes in (0, 30, 30):
        clock.now += 60 * minutes
        await gas.look()
    assert (gas.low, merchant.measured("tinybrain_gas_settlements_left") < 500) == (True, True)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    control(chain.web3, "setBalance", merchant.gas.address, hex(10**18))
    await gas.look()
    assert not gas.low


async def test_the_gas_is_looked_at_with_every_round(merchant, gas):
    await _housekeeping(merchant, gas=gas).run()
    assert merchant.measured("tinybrain_gas_settlements_left") > 0


# --- opening the books


@pytest.fixture
def opened(merchant):
    return lambda: merchant.ledger.opened(
        network=NETWORK,
        asset=merchant.settings.token.address.lower(),
        address=merchant.purse.address.lower(),
    )


async def test_the_book_of_a_new_ledger_opens_with_what_the_wallet_holds_now(
    housekeeping, merchant, chain, opened
):
    merchant.mint(merchant.purse, 5_000)
    await housekeeping.run()
    book = await opened()
    assert (book.balance, book.block) == (5_000, chain.web3.eth.block_number)
    merchant.mint(merchant.purse, 5_000)
    await housekeeping.run()
    assert (await opened()).balance == 5_000


async def test_the_book_of_an_older_ledger_opens_before_its_first_movement(
    merchant, chain, payer, clock, opened
):
    merchant.mint(merchant.purse, 5_000)
    before = chain.web3.eth.block_number
    later = chain.web3.eth.get_block("latest")["timestamp"] + 200
    control(chain.web3, "mine", "0x1")
    chain.web3.provider.make_request("evm_setNextBlockTimestamp", [later])
    control(chain.web3, "mine", "0x1")
    clock.now = later + 30
    await merchant.sell(payer)
    merchant.mint(merchant.purse, 5_000)
    await _housekeeping(merchant).run()
    book = await opened()
    assert (book.balance, before <= book.block <= before + 1) == (5_000, True)
