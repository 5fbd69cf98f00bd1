"""Refunds: signed by the wallet that was paid, sent once, never given up."""

import time
from types import SimpleNamespace

import pytest
from eth_account import Account
from pydantic import SecretStr

from tests.payments.settling import LosesAnswers
from tinybrain.config import load_settings
from tinybrain.devnet.wallets import private_key
from tinybrain.errors import PaymentServiceError
from tinybrain.payments.eip3009 import Authorization, Domain, recover_signer
from tinybrain.payments.refunding import CannotSign, RefundSigner, can_refund

pytestmark = pytest.mark.chain


@pytest.fixture
def clock(clock):
    """The real time, which the chain here keeps to."""
    clock.now = time.time()
    return clock


@pytest.fixture
async def refund(merchant, payer):
    """What is given back for an answer that was paid upfront and failed."""
    return await merchant.overcharge(payer)


async def test_a_failed_answer_that_was_paid_upfront_is_refunded_on_the_chain(
    settler, merchant, payer, refund
):
    assert (merchant.balance(), refund.state) == (10_000, "served")
    await settler.drain()
    assert (merchant.balance(), merchant.balance(payer)) == (0, 1_000_000)
    settled = await merchant.row(refund)
    assert (settled.state, settled.block is not None) == ("settled", True)
    assert (await merchant.ledger.payment(refund.refund_of)).state == "refunded"
    assert merchant.measured("tinybrain_refunds_usdc_atomic_total") == 10_000


async def test_refunds_and_payments_share_a_transaction(settler, merchant, payer, refund):
    served = await merchant.sell(payer)
    await settler.drain()
    transactions = {(await merchant.row(row)).transaction for row in (served, refund)}
    assert (len(transactions), merchant.balance()) == (1, 10_000)


async def test_a_refund_is_on_record_as_signed_before_it_is_sent(merchant, refund):
    class Looks:
        async def settle_many(self, orders):
            self.stored = await merchant.row(refund)
            return [PaymentServiceError("no answer")] * len(orders)

    facilitator = Looks()
    await merchant.settler(facilitator).drain()
    signed = facilitator.stored.payload["payload"]["authorization"]
    assert (signed["nonce"], int(signed["validBefore"])) == (
        refund.nonce,
        facilitator.stored.valid_before,
    )


async def test_a_refund_whose_answer_was_lost_is_not_paid_twice(settler, merchant, payer, refund):
    lost = LosesAnswers(merchant.facilitator, PaymentServiceError("no answer"), works=True)
    await merchant.settler(lost).drain()
    await settler.drain()
    assert ((await merchant.row(refund)).state, merchant.balance(payer)) == ("settled", 1_000_000)


async def test_an_expired_refund_is_signed_again_under_the_same_nonce(
    settler, merchant, payer, refund, clock
):
    lost = LosesAnswers(merchant.facilitator, PaymentServiceError("no answer"), works=False)
    await merchant.settler(lost).drain()
    expired = await merchant.row(refund)
    clock.now += 1_000
    await merchant.settler(lost).drain()
    again = await merchant.row(refund)
    assert (again.state, again.nonce) == ("served", refund.nonce)
    assert again.valid_before == expired.valid_before + 1_000
    clock.now = time.time() + 5
    await settler.settle_payment(refund.id)
    assert merchant.balance(payer) == 1_000_000


async def test_an_empty_treasury_is_warned_of_and_pays_when_it_has_money_again(
    settler, merchant, chain, payer, refund, clock, caplog
):
    elsewhere = chain.token.functions.transfer(chain.wallets.provider.address, 10_000)
    merchant.send(elsewhere, merchant.purse)
    await settler.drain()
    assert (await merchant.row(refund)).state == "served"
    assert f"refund {refund.id} of payment {refund.refund_of} is tried again" in caplog.text
    merchant.mint(merchant.purse, 10_000)
    clock.now += 5
    await settler.drain()
    assert merchant.balance(payer) == 1_000_000


async def test_without_the_key_of_the_paid_address_a_refund_waits_and_is_warned_of(
    settler, merchant, payer, refund, clock, caplog
):
    other = merchant.settings.model_copy(
        update={"treasury_private_key": SecretStr(private_key(Account.create()))}
    )
    await merchant.settler(settings=other).drain()
    waiting = await merchant.row(refund)
    assert (waiting.state, "TREASURY_PRIVATE_KEY" in waiting.note) == ("served", True)
    assert "TREASURY_PRIVATE_KEY" in caplog.text
    clock.now += 5
    await settler.drain()
    assert merchant.balance(payer) == 1_000_000


async def test_killed_while_a_refund_was_sent_it_is_found_on_the_chain(merchant, payer, refund):
    await merchant.ledger.take([refund.id])
    signed = RefundSigner(merchant.settings).sign(refund)
    await merchant.ledger.refund_signed(refund.id, valid_before=signed.valid_before, payload={})
    assert (await merchant.facilitator.settle(signed.payload, signed.requirements)).success
    restarted = merchant.settler()
    await restarted.recover()
    await restarted.drain()
    assert ((await merchant.row(refund)).state, merchant.balance(payer)) == ("settled", 1_000_000)


async def test_a_refund_that_expired_while_nobody_ran_is_signed_again(
    merchant, payer, refund, clock
):
    await merchant.ledger.take([refund.id])
    signed = RefundSigner(merchant.settings).sign(refund)
    await merchant.ledger.refund_signed(refund.id, valid_before=signed.valid_before, payload={})
    clock.now += 400
    settler = merchant.settler()
    await settler.recover()
    await settler.drain()
    assert (await merchant.row(refund)).state == "served"
    clock.now = time.time() + 5
    await settler.settle_payment(refund.id)
    assert merchant.balance(payer) == 1_000_000


async def test_a_refund_is_signed_for_exactly_what_the_ledger_says(merchant, refund):
    signed = RefundSigner(merchant.settings, clock=lambda: 2_000_000_000).sign(refund)
    authorization = Authorization.model_validate(signed.payload.payload["authorization"])
    domain = Domain.of(merchant.settings.network, merchant.settings.token)
    signer = recover_signer(authorization, signed.payload.payload["signature"], domain)
    assert signer == authorization.payer == merchant.purse.address
    assert (authorization.to.lower(), authorization.value) == (refund.pay_to, refund.amount)
    assert (authorization.nonce, signed.valid_before) == (refund.nonce, 2_000_000_300)
    assert signed.payload.payload["signature"] not in repr(signed)


async def test_a_refund_from_another_wallet_is_not_signed(merchant, refund):
    elsewhere = SimpleNamespace(**{**refund._mapping, "payer": "0x" + "b" * 40})
    with pytest.raises(CannotSign, match=elsewhere.payer):
        RefundSigner(merchant.settings).sign(elsewhere)


def test_refunds_are_possible_with_the_key_of_the_paid_address_only():
    key, pay_to = "0x" + "2" * 64, Account.from_key("0x" + "2" * 64).address
    assert can_refund(load_settings(pay_to=pay_to, treasury_private_key=key))
    assert can_refund(load_settings(pay_to=pay_to.lower(), treasury_private_key=key))
    assert not can_refund(load_settings(pay_to="0x" + "1" * 40, treasury_private_key=key))
    assert not can_refund(load_settings(pay_to=pay_to))
    assert not can_refund(load_settings(treasury_private_key=key))
