"""The service that a command asks about: its settings, and its chain."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # it has no types

from tinybrain.config import Settings, load_settings
from tinybrain.payments.chain import Chain
from tinybrain.payments.rpc import Rpc

DEVNET_CONFIG = Path("devnet") / "serve_config.yaml"


def service_settings() -> Settings:
    """The settings as the service reads them; where none say who is paid, the devnet's.

    Raises:
        ConfigError: A setting cannot be read.
    """
    settings = load_settings()
    config = settings.home / DEVNET_CONFIG
    if settings.pay_to is not None or settings.ledger_url is not None or not config.exists():
        return settings
    applications: list[dict[str, Any]] = yaml.safe_load(config.read_text())["applications"]
    return load_settings(**applications[0]["args"])


@asynccontextmanager
async def open_chain(settings: Settings) -> AsyncIterator[Chain]:
    """The settings' token on their network."""
    rpc = Rpc(settings.rpc)
    try:
        yield Chain(rpc, settings.token.address)
    finally:
        await rpc.aclose()
