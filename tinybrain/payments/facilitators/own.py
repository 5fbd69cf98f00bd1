"""The own facilitator: verifies by simulation, settles in batches, and pays the gas.

What became of each payment is read from the logs of the receipt, never assumed. Deploys no smart
wallets (ERC-6492).
Source: x402, scheme `exact` on EVM, EIP-3009.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from x402.mechanisms.evm.constants import (
    ERR_SETTLEMENT_PENDING,
    ERR_TRANSACTION_FAILED,
    ERR_TRANSACTION_SIMULATION_FAILED,
    SCHEME_EXACT,
)
from x402.schemas import (
    PaymentPayload,
    PaymentRequirements,
    SettleResponse,
    SupportedKind,
    SupportedResponse,
    VerifyResponse,
)

from tinybrain.errors import ConfigError, PaymentServiceError
from tinybrain.payments.eip3009 import transfers
from tinybrain.payments.facilitators.base import CONCURRENCY, Order, Settled
from tinybrain.payments.facilitators.exact import ALONE_GAS, ExactChecks, Payment, batch_gas
from tinybrain.payments.facilitators.multicall import MULTICALL3, aggregate
from tinybrain.payments.rpc import Rpc, RpcRefused
from tinybrain.payments.wallet import HotWallet

DUPLICATE_SETTLEMENT = "duplicate_settlement"
CONFIRMATION_TIMEOUT_S = 90.0
LONGEST_BATCH = 100  # keeps the gas limit below 2^24, the most a transaction may ask (EIP-7825)

Settlements = dict[tuple[str, str], Settled]
"""By a payment's key."""


class OwnFacilitator:
    """Verifies and settles payments in one token on one chain; without a wallet, verifies only."""

    def __init__(
        self,
        rpc: Rpc,
        wallet: HotWallet | None,
        network: str,
        asset: str,
        *,
        confirmation_timeout_s: float = CONFIRMATION_TIMEOUT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rpc = rpc
        self._wallet = wallet
        self._network = network
        self._asset = asset
        self._confirmation_timeout_s = confirmation_timeout_s
        self._clock = clock
        self._checks = ExactChecks(rpc, network, asset)
        self._under_way: set[tuple[str, str]] = set()
        self._pending: dict[tuple[str, str], str] = {}
        self._slots = asyncio.Semaphore(CONCURRENCY)

    def supported(self) -> SupportedResponse:
        """The kind of payment accepted, and the wallet that settles it."""
        kind = SupportedKind(x402_version=2, scheme=SCHEME_EXACT, network=self._network)
        signers = [self._wallet.address] if self._wallet else []
        return SupportedResponse(kinds=[kind], signers={"eip155:*": signers})

    async def verify(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> VerifyResponse:
        """See Facilitator."""
        payment = self._checks.read(payload, requirements, now=self._clock())
        if isinstance(payment, str):
            return VerifyResponse(is_valid=False, invalid_reason=payment)
        reason = await self._checks.refusal(payment)
        return VerifyResponse(
            is_valid=reason is None, invalid_reason=reason, payer=payment.authorization.payer
        )

    async def settle(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> SettleResponse:
        """See Facilitator.

        Raises:
            ConfigError: There is no wallet.
        """
        (result,) = await self.settle_many([(payload, requirements)])
        if isinstance(result, PaymentServiceError):
            raise result
        return result

    async def settle_many(self, orders: Sequence[Order]) -> list[Settled]:
        """See Facilitator. Payments of one call share transactions where that is safe.

        Raises:
            ConfigError: There is no wallet.
        """
        taken = [self._take(order) for order in orders]
        payments = [each for each in taken if isinstance(each, Payment)]
        try:
            settled = await self._settle(payments)
        finally:
            self._under_way -= {payment.key for payment in payments}
        return [
            settled[each.key] if isinstance(each, Payment) else self._failed(each) for each in taken
        ]

    async def aclose(self) -> None:
        """See Facilitator. The wallet and the connection it was given are closed with it."""
        if self._wallet is not None:
            await self._wallet.aclose()
        await self._rpc.aclose()

    def _take(self, order: Order) -> Payment | str:
        payment = self._checks.read(*order, now=self._clock())
        if isinstance(payment, str):
            return payment
        if payment.key in self._under_way:
            return DUPLICATE_SETTLEMENT
        self._under_way.add(payment.key)
        return payment

    async def _settle(self, payments: Sequence[Payment]) -> Settlements:
        if self._wallet is None:
            raise ConfigError(
                "This process verifies payments only; the Settlement deployment settles."
            )
        sent = self._sent_before(self._wallet, payments)
        fresh = [payment for payment in payments if payment.key not in self._pending]
        try:
            together, alone = await self._divide(fresh)
        except PaymentServiceError as error:
            return dict.fromkeys((payment.key for payment in payments), error)
        batches = [together[i : i + LONGEST_BATCH] for i in range(0, len(together), LONGEST_BATCH)]
        parts = await asyncio.gather(
            self._each_alone(self._wallet, alone),
            *(self._batch(self._wallet, batch) for batch in batches),
            *(self._wait_again(self._wallet, tx_hash, some) for tx_hash, some in sent.items()),
        )
        return {key: result for part in parts for key, result in part.items()}

    def _sent_before(
        self, wallet: HotWallet, payments: Sequence[Payment]
    ) -> dict[str, list[Payment]]:
        """Those whose transaction is on its way still, by its hash; a second one would revert."""
        self._pending = {k: tx for k, tx in self._pending.items() if wallet.may_be_mined(tx)}
        sent: dict[str, list[Payment]] = {}
        for payment in payments:
            if tx_hash := self._pending.get(payment.key):
                sent.setdefault(tx_hash, []).append(payment)
        return sent

    async def _wait_again(
        self, wallet: HotWallet, tx_hash: str, payments: Sequence[Payment]
    ) -> Settlements:
        settled = await self._outcomes(wallet, tx_hash, payments)
        rest = [payment for payment in payments if payment.key not in settled]
        return settled | await self._each_alone(wallet, rest)

    async def _divide(
        self, payments: Sequence[Payment]
    ) -> tuple[Sequence[Payment], Sequence[Payment]]:
        """Those that can share a transaction, and those that cannot.

        A payer with code could burn the gas of all others.
        """
        if len(payments) <= 1:
            return [], payments
        payers = sorted({payment.payer for payment in payments})
        with_code = await self._checks.holding_code([MULTICALL3.lower(), *payers])
        if MULTICALL3.lower() not in with_code:
            return [], payments
        together = [payment for payment in payments if payment.payer not in with_code]
        return together, [payment for payment in payments if payment.payer in with_code]

    async def _batch(self, wallet: HotWallet, payments: Sequence[Payment]) -> Settlements:
        settled = await self._in_one_transaction(wallet, payments)
        rest = [payment for payment in payments if payment.key not in settled]
        return settled | await self._each_alone(wallet, rest)

    async def _in_one_transaction(
        self, wallet: HotWallet, payments: Sequence[Payment]
    ) -> Settlements:
        """Settle a batch; leaves out those to try alone, as one may have burnt another's gas."""
        try:
            reasons = await self._checks.batch_refusals(payments)
            verdicts = list(zip(payments, reasons, strict=True))
            good = [payment for payment, reason in verdicts if reason is None]
            refused: Settlements = {
                payment.key: self._failed(reason, payment)
                for payment, reason in verdicts
                if reason and reason != ERR_TRANSACTION_SIMULATION_FAILED
            }
            if len(good) <= 1:
                return refused
            data = aggregate(self._asset, [payment.data for payment in good])
            return refused | await self._send(wallet, MULTICALL3, data, batch_gas(len(good)), good)
        except RpcRefused:
            return {}
        except PaymentServiceError as error:
            return dict.fromkeys((payment.key for payment in payments), error)

    async def _each_alone(self, wallet: HotWallet, payments: Sequence[Payment]) -> Settlements:
        results = await asyncio.gather(*(self._alone(wallet, payment) for payment in payments))
        return {payment.key: result for payment, result in zip(payments, results, strict=True)}

    async def _alone(self, wallet: HotWallet, payment: Payment) -> Settled:
        async with self._slots:
            try:
                if reason := await self._checks.refusal(payment):
                    return self._failed(reason, payment)
                sent = await self._send(wallet, self._asset, payment.data, ALONE_GAS, [payment])
                if settled := sent.get(payment.key):
                    return settled
                reason = await self._checks.refusal(payment)
                return self._failed(reason or ERR_TRANSACTION_FAILED, payment)
            except PaymentServiceError as error:
                return error

    async def _send(
        self, wallet: HotWallet, to: str, data: str, gas: int, payments: Sequence[Payment]
    ) -> Settlements:
        """Send a transaction that settles payments; leaves out those that its logs do not show."""
        return await self._outcomes(wallet, await wallet.send(to, data, gas), payments)

    async def _outcomes(
        self, wallet: HotWallet, tx_hash: str, payments: Sequence[Payment]
    ) -> Settlements:
        receipt = await wallet.wait(tx_hash, self._confirmation_timeout_s)
        if receipt is None and not wallet.may_be_mined(tx_hash):
            return {}  # another transaction took its nonce
        if receipt is None:
            self._pending |= dict.fromkeys((payment.key for payment in payments), tx_hash)
            return {p.key: self._failed(ERR_SETTLEMENT_PENDING, p, tx_hash) for p in payments}
        made = {(each.sender, each.nonce): each for each in transfers(receipt.logs, self._asset)}
        return {
            payment.key: SettleResponse(
                success=True,
                payer=payment.authorization.payer,
                transaction=receipt.transaction,
                network=self._network,
            )
            for payment in payments
            if payment.key in made and made[payment.key].pays(payment.authorization)
        }

    def _failed(
        self, reason: str, payment: Payment | None = None, transaction: str = ""
    ) -> SettleResponse:
        return SettleResponse(
            success=False,
            error_reason=reason,
            payer=payment.authorization.payer if payment else None,
            transaction=transaction,
            network=self._network,
        )
