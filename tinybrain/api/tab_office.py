"""Opens prepaid tabs, closes tabs of either kind, and waits for their money. Knows no HTTP.

A payment becomes public when it is settled, so it alone proves nothing later: a repeated request
is told its tab's token only if it carries something that nobody else can know.
"""

import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from tinybrain.api.admission import TAB_PREFIX, hash_token
from tinybrain.config import Settings
from tinybrain.errors import InvalidRequest, NotFound, PaymentConflict, PaymentPending
from tinybrain.payments.collecting import SettlePayment, collect, require_collected
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.merchant import Merchant
from tinybrain.payments.pricing import Product
from tinybrain.payments.records import NewPayment, NewTab, Purpose, TabState
from tinybrain.payments.settlement import Outcome
from tinybrain.payments.tab_accounts import TabAccount, TabAccounts
from tinybrain.payments.wire import PaymentHeader
from tinybrain.usdc import Usdc, format_usdc

TABS_PATH = "/v1/tabs"
OPEN_WAIT_S = 20.0
CLOSE_WAIT_S = 8.0
TOLD_ONCE = (
    "This payment opened a tab already, and the tab's token is not told again: anyone can see a "
    "payment once it is settled. Send an Idempotency-Key with the request that opens a tab, and "
    "the same request gets the same tab for a while. An unused tab is refunded by itself."
)


@dataclass(frozen=True, slots=True)
class OpenedTab:
    """A tab, whoever opened it; `outcome` is its deposit's, None while that is not known."""

    token: str = field(repr=False)
    payment: NewPayment
    outcome: Outcome | None


class TabOffice:
    """The life of a tab between ledger, merchant and settlement."""

    def __init__(
        self,
        settings: Settings,
        *,
        ledger: Ledger,
        accounts: TabAccounts,
        merchant: Merchant,
        settle: SettlePayment,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._accounts = accounts
        self._merchant = merchant
        self._settle = settle

    def require_offered(self) -> None:
        """Refuse to open tabs where what is left of them could not be given back.

        Raises:
            NotFound: This service has no key to refund with.
        """
        if not self._settings.refunds:
            raise NotFound(
                "Tabs are not offered here: this service cannot send refunds. Pay for each "
                "answer over x402.",
                code="tabs_not_offered",
            )

    def product(self, deposit: Usdc) -> Product:
        """A prepaid tab with a deposit.

        Raises:
            InvalidRequest: The deposit is too small or too large.
        """
        require_between(deposit, self._settings.tab_min_deposit, self._settings.tab_max_deposit)
        return Product(TABS_PATH, f"A tab with {format_usdc(deposit)} on it", deposit, "upfront")

    async def open_prepaid(
        self, header: PaymentHeader, product: Product, *, request_hash: str, keyed: bool
    ) -> OpenedTab:
        """Open a tab and settle its deposit, or find the tab that the same request opened.

        `keyed` says that the request carries an Idempotency-Key and `request_hash` covers it.

        Raises:
            PaymentRequired: The payment does not pay the deposit, or cannot be collected.
            PaymentPending: Its outcome is not known yet; the same request finds it out.
            PaymentConflict: It is used already.
            DebtOwed, PaymentServiceError, LedgerUnavailable: See Admissions.admit.
        """
        payment = self._merchant.identify(
            header, product, request_hash=request_hash, purpose=Purpose.TAB
        )
        found = await self._opened_before(payment, keyed=keyed)
        if found is None:
            await self._merchant.verify(payment)
            found = await self._open(payment, keyed=keyed)
        token, payment_id = found
        outcome = await collect(self._settle, payment_id, wait_s=OPEN_WAIT_S)
        if outcome is not None:
            require_collected(outcome)
        elif _can_be_repeated(payment, keyed=keyed):
            raise PaymentPending(
                "The deposit is on its way and its outcome is not known yet. Send the same "
                "request with the same payment again."
            )
        return OpenedTab(token, payment, outcome)

    async def account(self, token: str) -> TabAccount:
        """The account of a token's tab.

        Raises:
            Unauthorized: There is no such tab.
        """
        return await self._accounts.account(hash_token(token))

    async def close(
        self,
        account: TabAccount,
        *,
        settlement: NewPayment | None = None,
        enough: Callable[[TabAccount], bool] = lambda _: False,
    ) -> TabAccount:
        """Close a tab, and wait a little until its money has moved or it is `enough`.

        Closing a closed tab waits only.

        Returns:
            The account as it is then.

        Raises:
            PaymentConflict: Answers are under way, or the settlement is not for what was used.
        """
        if account.tab.state in (TabState.OPEN, TabState.OPENING):
            await self._ledger.close_tab(account.tab.id, settlement)
        deadline = time.monotonic() + CLOSE_WAIT_S
        while True:
            account = await self._accounts.account(account.tab.token_hash)
            waiting = account.under_way
            if waiting is None or enough(account):
                return account
            left_s = deadline - time.monotonic()
            if await collect(self._settle, waiting.id, wait_s=left_s) is None:
                return account

    async def _opened_before(self, payment: NewPayment, *, keyed: bool) -> tuple[str, int] | None:
        row = await self._ledger.require_unclaimed(payment)
        if row is None:
            return None
        proven = keyed or (payment.identifier is not None and row.identifier == payment.identifier)
        kept = await self._ledger.reply_of(row.tab_id) if proven else None
        if kept is None:
            raise PaymentConflict(TOLD_ONCE)
        return kept["token"], row.id

    async def _open(self, payment: NewPayment, *, keyed: bool) -> tuple[str, int]:
        token, tab = new_tab("prepaid")
        if _can_be_repeated(payment, keyed=keyed):
            # Before the tab: whoever is killed in between must not leave one without its token.
            await self._ledger.keep_reply(tab.id, {"token": token})
        try:
            return token, await self._ledger.open_tab(tab, payment)
        except PaymentConflict:
            twin = await self._opened_before(payment, keyed=keyed)
            if twin is None:
                raise
            return twin


def new_tab(kind: str) -> tuple[str, NewTab]:
    """A tab to be opened, with its token; the ledger is told only the token's hash."""
    token = TAB_PREFIX + secrets.token_urlsafe(32)
    return token, NewTab(f"t_{uuid.uuid4().hex}", hash_token(token), kind)


def require_between(deposit: int, least: Usdc, most: Usdc) -> None:
    """Bound a deposit.

    Raises:
        InvalidRequest: It is too small or too large.
    """
    if not least <= deposit <= most:
        raise InvalidRequest(
            f"The deposit is {format_usdc(deposit)}; it must be between {format_usdc(least)} and "
            f"{format_usdc(most)}.",
            param="deposit",
        )


def _can_be_repeated(payment: NewPayment, *, keyed: bool) -> bool:
    return keyed or payment.identifier is not None
