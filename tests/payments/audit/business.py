"""A business that really sells and buys: its ledger, and its money on a real chain."""

import itertools
import secrets
import time

from sqlalchemy import text

from tinybrain.networks import USDC_BY_NETWORK
from tinybrain.payments.audit import Token, adopt, audit
from tinybrain.payments.eip3009 import Authorization, Domain, calldata, sign
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.records import (
    AnswerRecord,
    Charge,
    Collected,
    NewAnswer,
    NewPayment,
    NewPurchase,
    NewTab,
    Purpose,
    TabCharge,
)

NETWORK = "eip155:84532"
USDC = USDC_BY_NETWORK[NETWORK]
COMPLETED = AnswerRecord(outcome="completed", answered_by="tinychat")
FAILED = AnswerRecord(outcome="failed", error="it broke")
PRICE = 10_000


class Business:
    """Drives a real ledger, and moves the money that its rows speak of."""

    def __init__(self, database, local, chain):
        self.database = database
        self.ledger = Ledger(database)
        self.local = local
        self.chain = chain
        self.treasury = local.new_wallet(5)
        self.caller = local.new_wallet(5)
        self.provider = local.new_wallet(0).address.lower()
        self._gas = local.new_wallet(0)
        self._keys = {wallet.address.lower(): wallet for wallet in (self.treasury, self.caller)}
        self.address = self.treasury.address.lower()
        self.payer = self.caller.address.lower()
        self._numbers = itertools.count(1)

    async def open(self):
        await self.ledger.open_book(
            network=NETWORK,
            asset=USDC.address.lower(),
            address=self.address,
            block=await self.chain.head(),
            balance=await self.chain.balance(self.address),
        )

    async def audit(self, *, lag_s=0, **changes):
        token = Token(NETWORK, USDC.address.lower())
        return await audit(self.database, self.chain, token, {self.address}, lag_s=lag_s, **changes)

    async def adopt(self, transaction):
        token = Token(NETWORK, USDC.address.lower())
        return await adopt(self.database, self.ledger, self.chain, token, transaction)

    async def tamper(self, statement):
        """What somebody does by hand, past the ledger."""
        async with self.database.write() as connection:
            assert (await connection.execute(text(statement))).rowcount

    # --- the life of rows

    async def sale(self, flow="authorization", record=COMPLETED, *, collected=True):
        """One answer for one payment; returns the payment's id."""
        answer = self._answer("x402")
        await self.ledger.begin(answer, self._payment(flow=flow))
        payment_id = (await self.ledger.payment_of(answer.id)).id
        if flow == "upfront":
            await self.settle(payment_id)
        charge = Charge.YES if record is COMPLETED else Charge.NO
        await self.ledger.finish(answer.id, record, charge=charge)
        if flow == "authorization" and collected:
            await self.settle(payment_id)
        return payment_id

    async def debt(self):
        payment_id = await self.sale(collected=False)
        await self.ledger.take([payment_id])
        await self.ledger.uncollectable(payment_id, "cancelled")
        return payment_id

    async def repayment(self):
        payment = self._payment(amount=PRICE + 500)
        payment_id = await self.ledger.repay(payment, debtor=self.payer)
        await self.settle_all()
        return payment_id

    async def tab(self, kind, *, answers, deposit=100_000):
        tab_id, token = f"tab_{next(self._numbers)}", secrets.token_hex(32)
        flow = "upfront" if kind == "prepaid" else "authorization"
        payment = self._payment(amount=deposit, purpose=Purpose.TAB, flow=flow)
        await self.ledger.open_tab(NewTab(tab_id, token, kind), payment)
        await self.settle_all()
        for _ in range(answers):
            answer = self._answer("tab")
            await self.ledger.begin(answer, tab=TabCharge(token, "0" * 64))
            await self.ledger.finish(answer.id, COMPLETED, charge=Charge.YES)
        return tab_id

    async def close(self, tab_id, spent=None):
        settlement = spent and self._payment(amount=spent, purpose=Purpose.TAB)
        await self.ledger.close_tab(tab_id, settlement)
        await self.settle_all()

    async def purchase(self, amount=1_000, *, noted=True):
        """Returns the purchase's id and the transaction that paid it."""
        purchase = NewPurchase(
            answer_id="",
            provider="upstream.example",
            network=NETWORK,
            asset=USDC.address.lower(),
            payer=self.address,
            pay_to=self.provider,
            amount=amount,
        )
        purchase_id = await self.ledger.reserve(purchase)
        nonce = _nonce()
        valid_before = int(time.time()) + 300
        await self.ledger.signed(purchase_id, nonce=nonce, valid_before=valid_before)
        transaction, _ = self.move(self.address, self.provider, amount, nonce)
        if noted:
            await self.ledger.paid(purchase_id, transaction=transaction)
        return purchase_id

    async def settle_all(self):
        while due := await self.ledger.due_payments():
            for row in due:
                await self.settle(row.id)

    async def settle(self, payment_id):
        await self.ledger.take([payment_id])
        transaction, block = await self.transfer_of(payment_id)
        await self.ledger.settled([Collected(payment_id, transaction, block)])
        return transaction

    # --- the chain

    async def transfer_of(self, payment_id):
        row = await self.ledger.payment(payment_id)
        return self.move(row.payer, row.pay_to, row.amount, row.nonce)

    def move(self, sender, receiver, amount, nonce):
        """Submit a signed authorization; returns transaction and block."""
        authorization = Authorization(
            payer=sender,
            to=receiver,
            value=amount,
            valid_after=0,
            valid_before=int(time.time()) + 3_600,
            nonce=nonce,
        )
        key = self._keys[sender].key.hex()
        signature = sign(authorization, key, Domain.of(NETWORK, USDC))
        return self._send(self._gas, calldata(authorization, signature))

    def withdraw(self, amount=250_000, receiver="0x" + "d" * 40):
        """The owner's own transfer, with no row; returns its transaction."""
        receiver = self.local.web3.to_checksum_address(receiver)
        return self._send(self.treasury, self._transfer(receiver, amount))[0]

    def deposit(self, amount=500_000):
        return self._send(self.caller, self._transfer(self.treasury.address, amount))[0]

    def _transfer(self, receiver, amount):
        return self.local.token.encode_abi("transfer", args=[receiver, amount])

    def _send(self, wallet, data):
        web3 = self.local.web3
        signed = wallet.sign_transaction(
            {
                "to": USDC.address,
                "data": data,
                "gas": 200_000,
                "nonce": web3.eth.get_transaction_count(wallet.address),
                "maxFeePerGas": 10**10,
                "maxPriorityFeePerGas": 10**9,
                "chainId": 84532,
            }
        )
        sent = web3.eth.send_raw_transaction(signed.raw_transaction)
        receipt = web3.eth.wait_for_transaction_receipt(sent, poll_latency=0.01)
        assert receipt["status"] == 1
        return sent.to_0x_hex(), receipt["blockNumber"]

    def _answer(self, credential):
        return NewAnswer(f"ans_{next(self._numbers):032x}", credential, "auto", PRICE)

    def _payment(self, **changes):
        values = {
            "network": NETWORK,
            "asset": USDC.address.lower(),
            "payer": self.payer,
            "nonce": _nonce(),
            "pay_to": self.address,
            "amount": PRICE,
            "valid_before": int(time.time()) + 300,
            "request_hash": "0" * 64,
            "payload": {"signature": "0xsecret"},
            "requirements": {},
        }
        return NewPayment(**(values | changes))


def _nonce():
    return "0x" + secrets.token_hex(32)
