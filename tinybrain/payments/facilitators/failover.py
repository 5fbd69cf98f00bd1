"""Several facilitators in an order: when one gives no answer, the next is asked.

Knows what a facilitator's failure means for a payment, and nothing of how any of them works.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from x402.mechanisms.evm.constants import ERR_SETTLEMENT_PENDING
from x402.schemas import PaymentPayload, PaymentRequirements, SettleResponse, VerifyResponse

from tinybrain.errors import PaymentServiceError
from tinybrain.payments.facilitators.base import Facilitator, Order, Settled

log = logging.getLogger(__name__)

FAILURES_TO_OPEN = 3
OPEN_S = 30


class CircuitBreaker:
    """Opens after three failures in a row; then one trial is allowed every 30 seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._trial_at = 0.0

    def allows(self) -> bool:
        """Whether a call may be made now. Asking takes the trial, so ask just before the call."""
        if self._failures < FAILURES_TO_OPEN:
            return True
        if self._clock() < self._trial_at:
            return False
        self._trial_at = self._clock() + OPEN_S
        return True

    def succeeded(self) -> None:
        """Close."""
        self._failures = 0

    def failed(self) -> None:
        """Count a failure, and open if it is one too many."""
        self._failures += 1
        self._trial_at = self._clock() + OPEN_S


@dataclass(frozen=True, slots=True)
class _Link:
    name: str
    facilitator: Facilitator
    # Apart, because verifications that succeed would keep closing it for settlements that hang.
    verifying: CircuitBreaker
    settling: CircuitBreaker


class FailoverFacilitator:
    """Asks facilitators, by name, in their order.

    A payment whose outcome at one is unknown may be given to the next, because the chain lets an
    authorization move money only once. `on_failure` is called with the name of each that failed.
    """

    def __init__(
        self,
        facilitators: Sequence[tuple[str, Facilitator]],
        *,
        on_failure: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not facilitators:
            raise ValueError("an order of facilitators needs at least one")
        self._links = [
            _Link(name, facilitator, CircuitBreaker(clock), CircuitBreaker(clock))
            for name, facilitator in facilitators
        ]
        self._on_failure = on_failure or (lambda _: None)

    async def verify(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> VerifyResponse:
        """See Facilitator. The first verdict counts, a refusal too."""
        failure = _nobody()
        for link in self._in_order(lambda link: link.verifying):
            try:
                verdict = await link.facilitator.verify(payload, requirements)
            except PaymentServiceError as error:
                failure = error
                self._failed(link, link.verifying, error)
            else:
                link.verifying.succeeded()
                return verdict
        raise failure

    async def settle(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> SettleResponse:
        """See Facilitator, and `settle_many`."""
        [result] = await self.settle_many([(payload, requirements)])
        if isinstance(result, PaymentServiceError):
            raise result
        return result

    async def settle_many(self, orders: Sequence[Order]) -> list[Settled]:
        """See Facilitator. Only orders whose outcome is unknown are given to the next.

        A refusal by that next one leaves the outcome unknown: the payment may be refused (nonce
        used, balance too low) just because the one before did move the money.
        """
        results: list[Settled] = [_nobody() for _ in orders]
        unknown = list(range(len(orders)))
        asked_before = False
        for link in self._in_order(lambda link: link.settling):
            answers = await link.facilitator.settle_many([orders[i] for i in unknown])
            for i, answer in zip(unknown, answers, strict=True):
                self._count(link, answer)
                results[i] = _doubt_refusal(answer) if asked_before else answer
            unknown = [
                i
                for i, answer in zip(unknown, answers, strict=True)
                if isinstance(answer, PaymentServiceError)
            ]
            if not unknown:
                break
            asked_before = True
        return results

    async def aclose(self) -> None:
        """See Facilitator."""
        async with AsyncExitStack() as closing:
            for link in self._links:
                closing.push_async_callback(link.facilitator.aclose)

    def _in_order(self, breaker: Callable[[_Link], CircuitBreaker]) -> Iterator[_Link]:
        skipped = 0
        for link in self._links:
            if breaker(link).allows():
                yield link
            else:
                skipped += 1
        if skipped == len(self._links):
            yield from self._links

    def _count(self, link: _Link, answer: Settled) -> None:
        if isinstance(answer, PaymentServiceError):
            self._failed(link, link.settling, answer)
        else:
            link.settling.succeeded()

    def _failed(self, link: _Link, breaker: CircuitBreaker, error: PaymentServiceError) -> None:
        breaker.failed()
        log.warning("facilitator %s: %s", link.name, error.message)
        self._on_failure(link.name)


def _doubt_refusal(answer: Settled) -> Settled:
    if (
        isinstance(answer, PaymentServiceError)
        or answer.success
        or answer.error_reason == ERR_SETTLEMENT_PENDING
    ):
        return answer
    return PaymentServiceError(
        f"One facilitator gave no answer, the next refused ({answer.error_reason}): whether the "
        "payment was settled must be asked of the chain. The same payment may be sent again."
    )


def _nobody() -> PaymentServiceError:
    return PaymentServiceError("No facilitator was asked; the same payment may be sent again.")
