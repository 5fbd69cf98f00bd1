"""How fast payments are settled and what gas each takes, in batches and alone.

The real settler, ledger and wallet on a local chain. What is settled are payments whose answers
were delivered before; every one must arrive.
"""

import itertools
import random
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from latency import Row
from paying import PRODUCT, REQUEST_HASH, LocalChain, Payer, new_payment
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from tinybrain.config import Settings
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.facilitators import build_gas_wallet, build_settler
from tinybrain.payments.ledger import Ledger, TransactionBook
from tinybrain.payments.merchant import Merchant
from tinybrain.payments.records import AnswerRecord, Charge, Limits, NewAnswer, PaymentState
from tinybrain.payments.refunding import RefundSigner
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.schema import payments
from tinybrain.payments.settlement import Settler
from tinybrain.telemetry.metrics import Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters


@dataclass(frozen=True, slots=True)
class Way:
    """A way to settle: so many at once, of so many payers, or one payment after another."""

    name: str
    batch: int
    payers: int
    in_turn: bool = False


WAYS = (
    Way("batches of 50, one payer", 50, payers=1),
    Way("batches of 50, 50 payers", 50, payers=50),
    Way("one by one, 16 under way", 1, payers=1),
    Way("one after another", 1, payers=1, in_turn=True),
)


class Outbox:
    """Payments that wait in a ledger of their own, and the settler that collects them."""

    def __init__(
        self, way: Way, merchant: Merchant, database: Database, ledger: Ledger, settler: Settler
    ) -> None:
        self.way = way
        self.rates: list[float] = []
        self._merchant = merchant
        self._database = database
        self._ledger = ledger
        self._settler = settler

    async def settle(self, payers: Sequence[Payer], count: int) -> float:
        """Record so many delivered answers, then settle them; returns how many a second."""
        ours = itertools.cycle(payers[: self.way.payers])
        waiting = [await self._deliver(payer) for payer in itertools.islice(ours, count)]
        started = time.perf_counter()
        if self.way.in_turn:
            for answer_id in waiting:
                await self._settler.settle_answer(answer_id)
        else:
            while await self._settler.drain():
                pass
        return count / (time.perf_counter() - started)

    async def transactions(self) -> Counter[str]:
        """How many payments each transaction settled, oldest first.

        Raises:
            RuntimeError: A payment is not settled.
        """
        async with self._database.read() as connection:
            rows = (await connection.execute(select(payments).order_by(payments.c.block))).all()
        if lost := [row.id for row in rows if row.state != PaymentState.SETTLED]:
            raise RuntimeError(f"{self.way.name}: payments {lost} are not settled.")
        return Counter(row.transaction for row in rows)

    async def _deliver(self, payer: Payer) -> str:
        header = new_payment(self._merchant, payer)
        payment = self._merchant.identify(header, PRODUCT, request_hash=REQUEST_HASH)
        answer = NewAnswer(f"ans_{uuid.uuid4().hex}", "x402", "auto", PRODUCT.price)
        await self._ledger.begin(answer, payment)
        await self._ledger.finish(answer.id, AnswerRecord("completed"), charge=Charge.YES)
        return answer.id


async def measure(chain: LocalChain, home: Path, *, rounds: int, count: int) -> list[Row]:
    """Settle `count` payments in every way, in turns; returns the table."""
    most = PRODUCT.price * (rounds + 1) * count * len(WAYS)
    payers = [chain.new_payer(most) for _ in range(max(way.payers for way in WAYS))]
    async with AsyncExitStack() as stack:
        outboxes = [
            await _open(stack, way, chain.settings(f"sqlite+aiosqlite:///{home}/outbox{n}.db"))
            for n, way in enumerate(WAYS)
        ]
        for outbox in outboxes:  # a payer's first transfer to an address takes more gas
            await outbox.settle(payers, outbox.way.payers)
        before = [await outbox.transactions() for outbox in outboxes]
        for _ in range(rounds):
            for outbox in random.sample(outboxes, len(outboxes)):
                outbox.rates.append(await outbox.settle(payers, count))
        made = [await outbox.transactions() for outbox in outboxes]
    in_turn = median(next(each.rates for each in outboxes if each.way.in_turn))
    return [
        _row(chain, outbox, now - then, in_turn)
        for outbox, now, then in zip(outboxes, made, before, strict=True)
    ]


async def _open(stack: AsyncExitStack, way: Way, settings: Settings) -> Outbox:
    database = await Database.open(settings.ledger)
    stack.push_async_callback(database.close)
    ledger = Ledger(database, limits=Limits.of(settings))
    wallet = build_gas_wallet(settings, TransactionBook(database, settings.network))
    facilitator = build_settler(settings, wallet)
    stack.push_async_callback(facilitator.aclose)
    rpc = Rpc(settings.rpc)
    stack.push_async_callback(rpc.aclose)
    settler = Settler(
        ledger,
        facilitator,
        Chain(rpc, settings.token.address),
        Metrics(PrometheusMeters(CollectorRegistry())),
        RefundSigner(settings),
        wallet=wallet,
        batch_size=way.batch,
    )
    return Outbox(way, Merchant(settings, facilitator), database, ledger, settler)


def _row(chain: LocalChain, outbox: Outbox, made: Counter[str], in_turn: float) -> Row:
    settled = made.total()
    return {
        "settled": outbox.way.name,
        "n": settled,
        "a transaction": round(settled / len(made), 1),
        "a second": round(median(outbox.rates)),
        "slowest round": round(min(outbox.rates)),
        "times one after another": round(median(outbox.rates) / in_turn, 1),
        "gas a payment": round(sum(map(chain.gas_used, made)) / settled),
    }
