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
from tinybrain.payments.wallet import HotWallet, TransactionStore

OnFailure = Callable[[str], None]
"""Is told the name of a facilitator that gave no answer: "own", "cdp", or a host."""


def build_verifier(
    settings: Settings, *, on_failure: OnFailure | None = None
) -> FailoverFacilitator:
    """The facilitators of a process that admits payments and holds no gas key.

    Raises:
        ConfigError: `facilitator` is not set or has one twice, or what one needs is missing.
    """
    own = OwnFacilitator(Rpc(settings.rpc), None, settings.network, settings.token.address)
    return _in_order(settings, lambda: own, on_failure)
