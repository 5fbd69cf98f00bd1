"""From settings to facilitators: which, in which order, and with which keys."""

from collections.abc import Callable
from urllib.parse import urlsplit

from pydantic import SecretStr
from x402.http.facilitator_client_base import CreateHeadersAuthProvider

from tinybrain.config import Settings
from tinybrain.errors import ConfigError
from tinybrain.payments.facilitators.base import Facilitator
from tinybrain.payments.facilitators.failover import FailoverFacilitator
from tinybrain.payments.facilitators.http import HttpFacilitator
from tinybrain.payments.facilitators.own import OwnFacilitator
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.transactions import TransactionStore
from tinybrain.payments.wallet import HotWallet

OnFailure = Callable[[str], None]
"""Is told the name of a facilitator that gave no answer: "own", "cdp", or host and port."""


def build_verifier(settings: Settings, *, on_failure: OnFailure | None = None) -> Facilitator:
    """The facilitators of a process that admits payments and holds no gas key.

    Raises:
        ConfigError: `facilitator` is not set or names one twice, or what one needs is missing.
    """
    return _in_order(settings, lambda: _own(settings, None), on_failure)


def build_settler(
    settings: Settings, wallet: HotWallet | None, *, on_failure: OnFailure | None = None
) -> Facilitator:
    """The facilitators of the one process that settles; `wallet` is `build_gas_wallet`'s.

    Raises:
        ConfigError: `facilitator` is not set or names one twice, or what one needs is missing.
    """
    return _in_order(settings, lambda: _own(settings, wallet), on_failure)


def build_gas_wallet(settings: Settings, store: TransactionStore) -> HotWallet | None:
    """The wallet that pays the own facilitator's gas; None if only others settle.

    One process has one, and only one.

    Raises:
        ConfigError: The key is not set.
    """
    if "own" not in settings.facilitators:
        return None
    key = _secret(settings.gas_private_key, "TINYBRAIN_GAS_PRIVATE_KEY")
    return HotWallet(key, Rpc(settings.rpc), settings.network, store)


def _own(settings: Settings, wallet: HotWallet | None) -> OwnFacilitator:
    rpc = wallet.rpc if wallet else Rpc(settings.rpc)
    return OwnFacilitator(rpc, wallet, settings.network, settings.token.address)


def _in_order(
    settings: Settings, own: Callable[[], OwnFacilitator], on_failure: OnFailure | None
) -> FailoverFacilitator:
    names = settings.facilitators
    if not names:
        raise ConfigError(
            'TINYBRAIN_FACILITATOR is missing: set it to "own", "cdp", a facilitator\'s URL, or '
            "several of them with commas between."
        )
    if len(set(names)) < len(names):
        raise ConfigError("TINYBRAIN_FACILITATOR names one twice; name each once.")
    order: list[tuple[str, Facilitator]] = []
    for name in names:
        if name == "own":
            order.append((name, own()))
        elif name == "cdp":
            order.append((name, _coinbase(settings)))
        else:
            order.append((_host(name), HttpFacilitator(name)))
    return FailoverFacilitator(order, on_failure=on_failure)


def _coinbase(settings: Settings) -> HttpFacilitator:
    key_id = _secret(settings.cdp_api_key_id, "CDP_API_KEY_ID")
    key_secret = _secret(settings.cdp_api_key_secret, "CDP_API_KEY_SECRET")
    try:
        from cdp.x402 import create_facilitator_config  # noqa: PLC0415  # an optional extra
    except ImportError:
        raise ConfigError(
            "TINYBRAIN_FACILITATOR has cdp, which needs Coinbase's package: "
            "run `pip install tinybrain[cdp]`."
        ) from None
    config = create_facilitator_config(key_id, key_secret)
    auth = CreateHeadersAuthProvider(config["create_headers"])
    try:
        auth.get_auth_headers()
    except ValueError:  # its text may quote the key
        raise ConfigError(
            "CDP_API_KEY_SECRET cannot be used: it is neither a PEM EC key nor a base64 Ed25519 "
            "key. Copy it again from the Coinbase Developer Platform."
        ) from None
    return HttpFacilitator(config["url"], auth=auth)


def _host(url: str) -> str:
    """What may be shown of a URL: its path and user may be secrets."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _secret(value: SecretStr | None, name: str) -> str:
    if value is None:
        raise ConfigError(f"{name} is missing: the chosen facilitator cannot work without it.")
    return value.get_secret_value()
