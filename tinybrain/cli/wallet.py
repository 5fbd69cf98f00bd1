"""`tinybrain wallet`: balances of the devnet's wallets, or of one key on the configured network."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tinybrain.cli.service import devnet_settings, open_chain
from tinybrain.config import load_settings
from tinybrain.devnet.wallets import DevnetWallets, private_key
from tinybrain.errors import ConfigError
from tinybrain.payments.payer import address_of
from tinybrain.usdc import format_usdc


class Balance(NamedTuple):
    """What a wallet holds: atomic USDC, and wei for gas."""

    name: str
    address: str
    usdc: int
    wei: int


async def show_balances(home: Path, key: str | None, *, rpc_url: str | None, as_json: bool) -> None:
    """Print the balances."""
    overrides = {"rpc_url": rpc_url} if rpc_url else {}
    if key is None:
        wallets = _devnet_wallets(home)
        named = {
            name: getattr(wallets, name).address
            for name in ("caller", "treasury", "gas", "provider", "facilitator")
        }
        settings = devnet_settings(home, **overrides)
        if settings is None:
            raise _no_devnet(home)
    else:
        named = {"key": address_of(key)}
        settings = load_settings(**overrides)
    async with open_chain(settings) as chain:
        balances = [
            Balance(
                name, address, await chain.balance(address), await chain.native_balance(address)
            )
            for name, address in named.items()
        ]
    if as_json:
        rows = [balance._asdict() for balance in balances]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table("wallet", "address", "USDC", "gas (ETH)", box=None)
    for balance in balances:
        table.add_row(
            balance.name, balance.address, format_usdc(balance.usdc), f"{balance.wei / 1e18:.4f}"
        )
    Console().print(table)


def caller_key(home: Path) -> str:
    """The private key of the devnet's caller.

    Raises:
        ConfigError: There is no devnet here.
    """
    return private_key(_devnet_wallets(home).caller)


def _devnet_wallets(home: Path) -> DevnetWallets:
    path = home / "devnet" / "wallets.json"
    if not path.exists():
        raise _no_devnet(home)
    return DevnetWallets.load_or_create(path)


def _no_devnet(home: Path) -> ConfigError:
    return ConfigError(
        f"There is no devnet in {home}: start one with `make run`, name its folder with --home, "
        "or pay with --key."
    )
