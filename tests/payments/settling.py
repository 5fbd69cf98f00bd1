"""A merchant who settles for himself: real chain, real token, real facilitator, real ledger."""

import itertools
import secrets
import time

import prometheus_client
from x402.schemas import PaymentPayload, PaymentRequirements

from tinybrain.config import load_settings
from tinybrain.devnet.token import mint
from tinybrain.devnet.wallets import private_key
from tinybrain.payments.chain import Chain
from tinybrain.payments.eip3009 import Authorization, Domain, sign
from tinybrain.payments.facilitators import OwnFacilitator
from tinybrain.payments.ledger import TransactionBook
from tinybrain.payments.records import AnswerRecord, Charge, NewAnswer, NewPayment, NewTab, Purpose
from tinybrain.payments.refunding import RefundSigner
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.settlement import Settler
from tinybrain.payments.wallet import HotWallet
from tinybrain.telemetry.metrics import Levels, Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters

NETWORK = "eip155:84532"
COMPLETED = AnswerRecord(outcome="completed")
FAILED = AnswerRecord(outcome="failed", error="no model could answer")


class LosesAnswers:
    """A facilitator whose answers are lost, before or after it did its work."""

    def __init__(self, inner, instead, *, works):
        self._inner = inner
        self._instead = instead
        self._works = works

    async def settle_many(self, orders):
        if self._works:
            await self._inner.settle_many(orders)
        return [self._instead] * len(orders)


class Merchant:
    """His wallet is paid and gives refunds; another pays the gas."""

    def __init__(self, chain, database, ledger, clock):
        self.chain, self.database, self.ledger, self.clock = chain, database, ledger, clock
        clock.now = max(time.time(), chain.web3.eth.get_block("latest")["timestamp"] + 1)
        self.purse, self.gas = chain.new_wallet(dollars=0), chain.new_wallet(dollars=0)
        self.settings = load_settings(
            network=NETWORK,
            rpc_url=chain.url,
            pay_to=self.purse.address,
            facilitator="own",
            gas_private_key=private_key(self.gas),
            treasury_private_key=private_key(self.purse),
        )
        self.registry = prometheus_client.CollectorRegistry()
        self.metrics = Metrics(PrometheusMeters(self.registry))
        self.levels = Levels(PrometheusMeters(self.registry))
        self._rpcs, self._wallets = [], []
        self.reads = Chain(self._rpc(), self.settings.token.address)
        self.wallet = self.hot_wallet()
        self.facilitator = self.own_facilitator(self.wallet)
        self._numbers = itertools.count(1)

    def pass_time(self, seconds):
        """Our clock goes on, and the chain's with it: only its time ends an authorization."""
        self.clock.now += seconds
        for method, *params in (("evm_setNextBlockTimestamp", int(self.clock())), ("evm_mine",)):
            assert "error" not in self.chain.web3.provider.make_request(method, params)

    def hot_wallet(self):
        """As after a restart, or of a second process by mistake."""
        store = TransactionBook(self.database, NETWORK)
        self._wallets.append(
            HotWallet(private_key(self.gas), self._rpc(), NETWORK, store, replace_after_s=0.5)
        )
        return self._wallets[-1]

    def own_facilitator(self, wallet):
        return OwnFacilitator(
            self._rpc(), wallet, NETWORK, self.settings.token.address, clock=self.clock
        )

    def _rpc(self):
        self._rpcs.append(Rpc(self.chain.url))
        return self._rpcs[-1]

    async def aclose(self):
        for each in (*self._wallets, *self._rpcs):
            await each.aclose()

    def settler(self, facilitator=None, *, chain=None, settings=None, **options):
        return Settler(
            self.ledger,
            facilitator or self.facilitator,
            chain or self.reads,
            self.metrics,
            RefundSigner(settings or self.settings, clock=self.clock),
            clock=self.clock,
            **options,
        )

    def measured(self, name, **labels):
        return self.registry.get_sample_value(name, labels)

    # --- selling

    def authorize(self, payer, amount=10_000, **changes):
        """An authorization of the payer to pay us; the signed message and its signature."""
        message = {
            "from": payer.address,
            "to": self.purse.address,
            "value": amount,
            "validAfter": 0,
            "validBefore": int(self.clock()) + 300,
            "nonce": "0x" + secrets.token_hex(32),
            **changes,
        }
        authorization = Authorization.model_validate(message)
        domain = Domain.of(NETWORK, self.settings.token)
        return authorization, sign(authorization, private_key(payer), domain)

    def payment(self, payer, amount=10_000, **changes):
        authorization, signature = self.authorize(payer, amount)
        terms = PaymentRequirements(
            scheme="exact",
            network=NETWORK,
            asset=self.settings.token.address,
            amount=str(amount),
            pay_to=self.purse.address,
            max_timeout_seconds=300,
            extra={"name": self.settings.token.name, "version": self.settings.token.version},
        )
        payload = PaymentPayload(
            payload={"authorization": authorization.to_wire(), "signature": signature},
            accepted=terms,
        )
        values = {
            "network": NETWORK,
            "asset": self.settings.token.address.lower(),
            "payer": payer.address.lower(),
            "nonce": authorization.nonce,
            "pay_to": self.purse.address.lower(),
            "amount": amount,
            "valid_before": authorization.valid_before,
            "request_hash": "0" * 64,
            "payload": payload.model_dump(by_alias=True, exclude_none=True),
            "requirements": terms.model_dump(by_alias=True, exclude_none=True),
        }
        return NewPayment(**(values | changes))

    async def begin(self, payer, amount=10_000, **changes):
        """An answer that is being worked on; its id."""
        answer = NewAnswer(f"ans_{next(self._numbers):032x}", "x402", "auto", amount)
        await self.ledger.begin(answer, self.payment(payer, amount, **changes))
        return answer.id

    async def sell(self, payer, amount=10_000):
        """An answer that was delivered; its payment."""
        answer_id = await self.begin(payer, amount)
        await self.ledger.finish(answer_id, COMPLETED, charge=Charge.YES)
        return await self.ledger.payment_of(answer_id)

    async def overcharge(self, payer):
        """A payment upfront for an answer that failed; its refund."""
        answer_id = await self.begin(payer, flow="upfront")
        await self.settler().settle_answer(answer_id)
        await self.ledger.finish(answer_id, FAILED, charge=Charge.NO)
        return await self.refund_of(await self.ledger.payment_of(answer_id))

    async def open_tab(self, payer, kind, deposit=100_000):
        """A tab; the id of its deposit's payment."""
        number = next(self._numbers)
        tab = NewTab(f"tab_{number}", f"{number:064x}", kind)
        flow = "upfront" if kind == "prepaid" else "authorization"
        payment = self.payment(payer, deposit, purpose=Purpose.TAB, flow=flow)
        await self.ledger.open_tab(tab, payment, spendable_until=int(self.clock()) + 250)
        return tab

    # --- looking

    async def row(self, row):
        """A payment as it stands now."""
        return await self.ledger.payment(row.id)

    async def refund_of(self, row):
        rows = await self.ledger.due_payments()
        return next((r for r in rows if r.refund_of == row.id), None)

    # --- the chain

    def balance(self, wallet=None):
        return self.chain.balance((wallet or self.purse).address)

    def mint(self, wallet, amount):
        mint(self.chain.web3, self.chain.token, wallet.address, amount)

    def anvil(self, method, *params):
        answer = self.chain.web3.provider.make_request(f"anvil_{method}", list(params))
        assert "error" not in answer, answer

    def transfer(self, payer, row, **changes):
        """A call of the token that uses a payment's authorization; `changes` make it another."""
        authorization = row.payload["payload"]["authorization"]
        numbers = {n: int(authorization[n]) for n in ("value", "validAfter", "validBefore")}
        signed, signature = self.authorize(payer, **({**authorization, **numbers} | changes))
        return self.chain.token.functions.transferWithAuthorization(
            *signed.model_dump().values(), bytes.fromhex(signature[2:])
        )

    def send(self, call, wallet=None):
        """Send a transaction; its hash."""
        wallet, eth = wallet or self.chain.new_wallet(dollars=0), self.chain.web3.eth
        count = eth.get_transaction_count(wallet.address)
        built = call.build_transaction({"from": wallet.address, "nonce": count})
        sent = eth.send_raw_transaction(wallet.sign_transaction(built).raw_transaction)
        assert eth.wait_for_transaction_receipt(sent)["status"] == 1
        return sent.to_0x_hex()
