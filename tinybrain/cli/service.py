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


def service_settings(home: Path | None = None) -> Settings:
    """The settings as the service reads them; where none say who is paid, the devnet's.

    `home` wins over TINYBRAIN_HOME.

    Raises:
        ConfigError: A setting cannot be read.
    """
    return find_settings(home)[0]


def find_settings(home: Path | None = None) -> tuple[Settings, bool]:
    """Likewise, and whether they are the devnet's.

    Raises:
        ConfigError: A setting cannot be read.
    """
    settings = load_settings() if home is None else load_settings(home=home)
    if settings.pay_to is not None or settings.ledger_url is not None:
        return settings, False
    devnet = devnet_settings(settings.home)
    return devnet or settings, devnet is not None


def devnet_settings(home: Path, **overrides: object) -> Settings | None:
    """The settings that the devnet in `home` was last started with; None if it never was.

    `overrides` are field names and win.

    Raises:
        ConfigError: A setting cannot be read.
    """
    config = home / DEVNET_CONFIG
    if not config.exists():
        return None
    applications: list[dict[str, Any]] = yaml.safe_load(config.read_text())["applications"]
    return load_settings(**applications[0]["args"] | overrides)


@asynccontextmanager
async def open_rpc(settings: Settings) -> AsyncIterator[Rpc]:
    """The node of the settings' network."""
    rpc = Rpc(settings.rpc)
    try:
        yield rpc
    finally:
        await rpc.aclose()


@asynccontextmanager
async def open_chain(settings: Settings) -> AsyncIterator[Chain]:
    """The settings' token on their network."""
    async with open_rpc(settings) as rpc:
        yield Chain(rpc, settings.token.address)
