"""What every facilitator can do: verify payments and put them on the chain.

A refusal is a response; a facilitator or chain that could not be asked is a PaymentServiceError,
so that a good payment is never refused because of a broken line.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from x402.schemas import PaymentPayload, PaymentRequirements, SettleResponse, VerifyResponse

from tinybrain.errors import PaymentServiceError

Order = tuple[PaymentPayload, PaymentRequirements]
"""A payment, and what it must pay for."""
Settled = SettleResponse | PaymentServiceError
"""What became of one of many orders; the error means that whether money moved is unknown."""

CONCURRENCY = 32  # each waits for a receipt, about one block


class Facilitator(Protocol):
    """Verifies payments and settles them."""

    async def verify(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> VerifyResponse:
        """Say whether a payment meets the requirements and could be settled now.

        Raises:
            PaymentServiceError: The facilitator or the chain could not be asked.
        """
        ...

    async def settle(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> SettleResponse:
        """Move the money. `settlement_pending` with a hash means: sent, not mined yet.

        Raises:
            PaymentServiceError: The facilitator or the chain could not be asked; whether the
                money moved is unknown.
        """
        ...

    async def settle_many(self, orders: Sequence[Order]) -> list[Settled]:
        """Settle several; one result for each order, in their order."""
        ...

    async def aclose(self) -> None:
        """Give back connections and tasks."""
        ...


class SettlesOneByOne(ABC):
    """A `settle_many` for facilitators that know no batches."""

    @abstractmethod
    async def settle(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> SettleResponse:
        """See Facilitator."""

    async def settle_many(self, orders: Sequence[Order]) -> list[Settled]:
        """See Facilitator. At most 32 are under way at once."""
        slots = asyncio.Semaphore(CONCURRENCY)

        async def settle(order: Order) -> Settled:
            async with slots:
                try:
                    return await self.settle(*order)
                except PaymentServiceError as error:
                    return error

        return list(await asyncio.gather(*map(settle, orders)))
