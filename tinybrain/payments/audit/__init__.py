"""The audit: does the ledger add up, and does it agree with the chain?

Reads only, also while the service runs. Three comparisons: each row with the journal
(`journal.py`), tabs and the age of rows (`rows.py`), and the chain with both (`chain.py`).
"""

import time
from collections.abc import Iterable

from tinybrain.payments.audit.adopt import adopt
from tinybrain.payments.audit.chain import check_chain, opened_books
from tinybrain.payments.audit.explain import Token
from tinybrain.payments.audit.journal import check_journal
from tinybrain.payments.audit.report import CannotAudit, Finding, Report, WalletBalance
from tinybrain.payments.audit.rows import check_rows
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database

__all__ = ["CannotAudit", "Finding", "Report", "Token", "WalletBalance", "adopt", "audit"]

LAG_S = 30.0
"""A facilitator's node may be so far ahead of ours."""


async def audit(
    database: Database,
    chain: Chain,
    token: Token,
    wallets: Iterable[str],
    *,
    now_s: float | None = None,
    lag_s: float = LAG_S,
) -> Report:
    """Compare everything; `wallets` are our addresses in lower case, `now_s` Unix seconds.

    What the ledger says and the chain does not show is waited for until `lag_s` are over.

    Raises:
        CannotAudit: The book of a wallet is not open.
        PaymentServiceError: The chain could not be asked.
        LedgerUnavailable: The ledger could not be read.
    """
    now_s = time.time() if now_s is None else now_s
    report = Report()
    books = await opened_books(database, token, wallets)
    await check_journal(database, report)
    await check_rows(database, report, now_s=now_s)
    await check_chain(database, chain, token, books, report, lag_s=lag_s)
    return report
