"""Joins the service's parts as the settings say; how they reach each other is handed in."""

from tinybrain.api.bar_tabs import BarTabs
from tinybrain.api.discovery import CHAT_PATH, NATIVE_PATH, ORIGINAL_PATH
from tinybrain.api.gateway import GasLow, Gateway, Settle
from tinybrain.api.model_cards import ModelCard
from tinybrain.api.openai import model_modes
from tinybrain.api.tab_office import TabOffice
from tinybrain.chat import LocalModel, Upstream
from tinybrain.config import Settings
from tinybrain.errors import ConfigError
from tinybrain.payments.collecting import SettlePayment
from tinybrain.payments.database import Database
from tinybrain.payments.facilitators import Facilitator
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.ledger.outcomes import OutcomeBook
from tinybrain.payments.merchant import Merchant
from tinybrain.payments.pricing import PriceList
from tinybrain.payments.receipts import Receipts
from tinybrain.payments.records import Limits
from tinybrain.payments.tab_accounts import TabAccounts
from tinybrain.routing.calibration.assembly import open_gate, open_router, rules_of, target_of
from tinybrain.routing.cascade import Cascade
from tinybrain.routing.gate import Gate
from tinybrain.routing.online.auditor import Auditor, Subject
from tinybrain.routing.online.follower import Follower
from tinybrain.routing.online.service import Online
from tinybrain.routing.online.tuning import Tuner
from tinybrain.telemetry.metrics import Metrics

CHAT_ROUTES = (CHAT_PATH, NATIVE_PATH, ORIGINAL_PATH)


def build_prices(settings: Settings) -> PriceList:
    """What is sold, by model and route.

    Raises:
        ConfigError: The settings price something that is not.
    """
    return PriceList(settings, models=model_modes(settings), routes=CHAT_ROUTES)


def require_sellable(settings: Settings) -> None:
    """Check that everything that is priced exists, and that what is paid upfront can be refunded.

    Raises:
        ConfigError: It does not, or cannot.
    """
    prices = build_prices(settings)
    products = [
        prices.product(path, model) for path in CHAT_ROUTES for model in model_modes(settings)
    ]
    upfront = settings.trust_after > 0 or any(product.flow == "upfront" for product in products)
    if upfront and not settings.refunds:
        raise ConfigError(
            "TINYBRAIN_FLOW, TINYBRAIN_PRICES or TINYBRAIN_TRUST_AFTER has answers paid upfront, "
            "and nothing could be refunded: set TINYBRAIN_TREASURY_PRIVATE_KEY to the key of "
            "TINYBRAIN_PAY_TO, and leave TINYBRAIN_REFUNDS out."
        )


def build_gateway(
    settings: Settings,
    database: Database,
    verifier: Facilitator,
    *,
    local: LocalModel,
    upstream: Upstream,
    settle: Settle,
    settle_payment: SettlePayment,
    gas_low: GasLow,
    metrics: Metrics,
) -> Gateway:
    """Join the parts as the settings say.

    Raises:
        ConfigError: See `open_gate`.
    """
    cascade = Cascade(local, upstream, rules=rules_of(settings), gate=open_gate(settings))
    ledger = Ledger(database, limits=Limits.of(settings))
    merchant = Merchant(settings, verifier)
    tabs = TabOffice(
        settings,
        ledger=ledger,
        accounts=TabAccounts(database),
        merchant=merchant,
        settle=settle_payment,
    )
    return Gateway(
        settings,
        ledger=ledger,
        receipts=Receipts(database),
        merchant=merchant,
        prices=build_prices(settings),
        cascade=cascade,
        tabs=tabs,
        bar_tabs=BarTabs(settings, verifier, ledger=ledger, office=tabs),
        settle=settle,
        settle_payment=settle_payment,
        gas_low=gas_low,
        metrics=metrics,
        model_card=ModelCard.read(settings),
        online=_online(settings, database, cascade, local, upstream, metrics),
    )


def _online(
    settings: Settings,
    database: Database,
    cascade: Cascade,
    local: LocalModel,
    upstream: Upstream,
    metrics: Metrics,
) -> Online | None:
    """What keeps the gate at its target; nothing can where there is no router."""
    router = open_router(settings)
    if router is None:
        return None
    book = OutcomeBook(database)

    def adopt(gate: Gate) -> None:
        cascade.gate = gate

    auditor = Auditor(
        local=local,
        upstream=upstream,
        book=book,
        subject=Subject.of(router),
        share=settings.audit_share,
        ended=metrics.audit,
        most_audits=_most_audits(settings),
    )
    target = target_of(settings) or router.target
    tuner = Tuner.of(cascade.gate, router, target, budget=_budget_per_day(settings))
    follower = Follower(tuner, book=book, adopt=adopt, metrics=metrics)
    return Online(router.checkpoint, auditor, follower)


def _budget_per_day(settings: Settings) -> int:
    """What the caps leave for a day; there is one provider."""
    return min(
        settings.max_cost_per_day, settings.max_cost_per_provider, 24 * settings.max_cost_per_hour
    )


def _most_audits(settings: Settings) -> int | None:
    """What is bought with a key tells no cost, so each counts as the dearest call."""
    if settings.upstream_api_key is None:
        return None
    return settings.audit_budget_per_day // max(1, settings.max_cost_per_call)
