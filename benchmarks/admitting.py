"""What a payment costs on its request's path: from the decoded header to the claim's commit.

The same payments are admitted against a real chain and a real ledger by our own verification and
by that of the x402 SDK, one at a time, in turns.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from itertools import pairwise

from latency import Row
from paying import PRODUCT, REQUEST_HASH, LocalChain, Payer, new_payment
from prometheus_client import CollectorRegistry
from x402 import x402FacilitatorSync
from x402.mechanisms.evm.exact import register_exact_evm_facilitator
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer
from x402.schemas import PaymentPayload, PaymentRequirements, SettleResponse, VerifyResponse

from tinybrain.api.admission import Admission, Admissions, Credentials, Repeated
from tinybrain.api.rate_limit import Refusals
from tinybrain.config import Settings
from tinybrain.payments.database import Database
from tinybrain.payments.facilitators import build_verifier
from tinybrain.payments.facilitators.base import SettlesOneByOne
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.merchant import Merchant
from tinybrain.payments.receipts import percentile
from tinybrain.payments.records import AnswerRecord, Charge, Limits, NewAnswer
from tinybrain.telemetry.metrics import Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters

ADDRESS = "127.0.0.1"
WARM_UP = 10
REPEATS = 5  # of each way in one round
OWN, SDK = "own", "x402 SDK"
STEPS = ("signature and terms", "looked up in the ledger", "verified on the chain", "claimed")


class SdkFacilitator(SettlesOneByOne):
    """The facilitator of the x402 SDK, which is synchronous, in a thread; verifies only."""

    def __init__(self, settings: Settings) -> None:
        assert settings.gas_private_key is not None
        key = settings.gas_private_key.get_secret_value()
        signer = FacilitatorWeb3Signer(key, settings.rpc)
        self._facilitator = x402FacilitatorSync()
        register_exact_evm_facilitator(self._facilitator, signer, settings.network)

    async def verify(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> VerifyResponse:
        return await asyncio.to_thread(self._facilitator.verify, payload, requirements)

    async def settle(self, *_: object) -> SettleResponse:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


class Desk:
    """One way to admit payments: who verifies, and where the ledger is."""

    def __init__(
        self, verifies: str, ledger_in: str, ledger: Ledger, merchant: Merchant, payer: Payer
    ) -> None:
        self.verifies = verifies
        self.ledger_in = ledger_in
        self._ledger = ledger
        self._merchant = merchant
        self._payer = payer
        metrics = Metrics(PrometheusMeters(CollectorRegistry()))
        self._admissions = Admissions(ledger, merchant, Refusals(1), metrics, api_key=None)
        self.times: list[float] = []
        self.steps: list[list[float]] = []

    async def admit(self) -> float:
        """Admit one payment and release it; milliseconds of the admission."""
        credentials = Credentials(payment=new_payment(self._merchant, self._payer), address=ADDRESS)
        started = time.perf_counter()
        admitted = await self._admissions.admit(
            credentials, PRODUCT, mode="auto", request_hash=REQUEST_HASH, started=started
        )
        elapsed = time.perf_counter() - started
        await self._release(admitted)
        return elapsed * 1000

    async def step_by_step(self) -> list[float]:
        """The parts of an admission one after the other, each in milliseconds."""
        header, answer_id = new_payment(self._merchant, self._payer), f"ans_{uuid.uuid4().hex}"
        times = [time.perf_counter()]
        payment = self._merchant.identify(header, PRODUCT, request_hash=REQUEST_HASH)
        times.append(time.perf_counter())
        await self._ledger.recorded(payment)
        times.append(time.perf_counter())
        await self._merchant.verify(payment)
        times.append(time.perf_counter())
        await self._ledger.begin(NewAnswer(answer_id, "x402", "auto", PRODUCT.price), payment)
        times.append(time.perf_counter())
        await self._ledger.finish(answer_id, AnswerRecord("failed"), charge=Charge.NO)
        return [(end - start) * 1000 for start, end in pairwise(times)]

    async def _release(self, admitted: Admission | Repeated) -> None:
        # Nothing may pile up: what is unsettled is summed up at each claim.
        assert isinstance(admitted, Admission)
        record = AnswerRecord("failed")
        await self._ledger.finish(admitted.answer_id, record, charge=Charge.NO)


async def measure(
    chain: LocalChain, ledgers: Mapping[str, str], *, rounds: int
) -> tuple[list[Row], list[Row]]:
    """Admit in every way, in turns; `ledgers` are databases' URLs by name.

    Returns:
        The table of the ways, and the table of their steps.
    """
    async with AsyncExitStack() as stack:
        desks = await _open_desks(stack, chain, ledgers)
        for desk in desks * WARM_UP:
            await desk.admit()
        for _ in range(rounds):
            for desk in random.sample(desks, len(desks)):
                desk.times += [await desk.admit() for _ in range(REPEATS)]
                desk.steps += [await desk.step_by_step()]
    slowest = max(_p50(desk.times) for desk in desks)
    return [_row(desk, slowest) for desk in desks], [_steps_row(desk) for desk in desks]


async def _open_desks(
    stack: AsyncExitStack, chain: LocalChain, ledgers: Mapping[str, str]
) -> list[Desk]:
    desks = []
    payer = chain.new_payer(PRODUCT.price)  # nothing is ever settled
    for name, url in ledgers.items():
        settings = chain.settings(url)
        database = await Database.open(url)
        stack.push_async_callback(database.close)
        ledger = Ledger(database, limits=Limits.of(settings))
        verifiers = {OWN: build_verifier(settings), SDK: SdkFacilitator(settings)}
        for verifies, verifier in verifiers.items():
            stack.push_async_callback(verifier.aclose)
            merchant = Merchant(settings, verifier)
            desks.append(Desk(verifies, name, ledger, merchant, payer))
    return desks


def _row(desk: Desk, slowest: float) -> Row:
    return {
        "verified by": desk.verifies,
        "ledger": desk.ledger_in,
        "n": len(desk.times),
        "P50": round(_p50(desk.times), 2),
        "P95": round(percentile(sorted(desk.times), 0.95), 2),
        "of the slowest": round(_p50(desk.times) / slowest, 2),
    }


def _steps_row(desk: Desk) -> Row:
    medians = map(_p50, zip(*desk.steps, strict=True))
    name: Row = {"verified by": desk.verifies, "ledger": desk.ledger_in}
    return name | {step: round(ms, 2) for step, ms in zip(STEPS, medians, strict=True)}


def _p50(values: Iterable[float]) -> float:
    return percentile(sorted(values), 0.5)
