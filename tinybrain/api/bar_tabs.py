"""Bar tabs: a deposit that is only signed, spent at once, and settled when the tab is closed.

Knows the original's authorizations, not its HTTP. Source: TinyBrain, session routes.
"""

import time
from dataclasses import dataclass, field

from tinybrain.api.tab_office import TabOffice, new_tab, require_between
from tinybrain.config import SETTLE_MARGIN_S, Settings
from tinybrain.errors import InvalidRequest, PaymentRequired
from tinybrain.payments.facilitators import Facilitator
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.merchant import Merchant
from tinybrain.payments.pricing import Product
from tinybrain.payments.records import NewPayment, Purpose, TabState
from tinybrain.payments.tab_accounts import TabAccount
from tinybrain.payments.wire import Authorization, PaymentHeader, Terms
from tinybrain.usdc import Usdc

OPEN_PATH = "/api/session/open"
WINDOW_S = 7200  # the original's page signs for an hour
LEAST_SPENDABLE_S = 60
CLOSING_S = 60  # until housekeeping has closed a tab that may not be spent from any more


@dataclass(frozen=True, slots=True)
class OpenedBarTab:
    """What the opener of a bar tab is told; `spendable_until` in Unix seconds."""

    id: str
    token: str = field(repr=False)
    deposit: Usdc
    spendable_until: int


class BarTabs:
    """Opens and closes bar tabs."""

    def __init__(
        self, settings: Settings, facilitator: Facilitator, *, ledger: Ledger, office: TabOffice
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._office = office
        longer = {"payment_timeout_s": WINDOW_S}
        self._merchant = Merchant(settings.model_copy(update=longer), facilitator)
        self._reserve_s = int(settings.answer_timeout_s) + SETTLE_MARGIN_S + CLOSING_S

    async def open(self, wallet: str, authorization: Authorization, signature: str) -> OpenedBarTab:
        """Open a tab on a signed deposit that the wallet covers.

        Raises:
            InvalidRequest: The wallet is another, or the deposit too small or too large.
            PaymentRequired: The deposit is not payable to us, not signed by the wallet, not
                covered, or does not stay valid long enough.
            PaymentConflict, DebtOwed, TooManyUnsettled: See Ledger.open_tab.
        """
        self._office.require_offered()
        if authorization.payer.lower() != wallet.lower():
            raise InvalidRequest(
                "The deposit's 'from' is not the walletAddress. Sign it with that wallet.",
                param="walletAddress",
            )
        require_between(
            authorization.value, self._settings.tab_min_deposit, self._settings.bar_tab_max_deposit
        )
        deposit = self._identify(authorization, signature)
        spendable_until = deposit.valid_before - self._reserve_s
        if spendable_until < time.time() + LEAST_SPENDABLE_S:
            raise PaymentRequired(
                "The deposit expires too soon. Sign one that is valid for an hour.",
                code="payment_expired",
            )
        await self._merchant.verify(deposit)
        token, tab = new_tab("bar")
        await self._ledger.open_tab(tab, deposit, spendable_until=spendable_until)
        return OpenedBarTab(tab.id, token, deposit.amount, spendable_until)

    async def close(self, token: str, settlement: tuple[Authorization, str] | None) -> TabAccount:
        """Close a tab with a payment of exactly what was used, or from its deposit.

        Raises:
            Unauthorized: There is no such tab.
            PaymentConflict: Answers are under way, or the settlement is not for what was used.
            PaymentRequired: The settlement cannot be collected.
        """
        account = await self._office.account(token)
        payment = None
        if settlement is not None and account.tab.state == TabState.OPEN:
            payment = self._identify(*settlement)
            if payment.amount == account.tab.spent:  # else the ledger says what it must be
                await self._merchant.verify(payment)
        return await self._office.close(
            account, settlement=payment, enough=lambda now: now.collected is not None
        )

    def _identify(self, authorization: Authorization, signature: str) -> NewPayment:
        value = Usdc(authorization.value)
        return self._merchant.identify(
            PaymentHeader(
                2, Terms(scheme="exact", network=self._settings.network), authorization, signature
            ),
            Product(OPEN_PATH, "A bar tab", value, "authorization"),
            request_hash="",
            purpose=Purpose.TAB,
        )
