"""The wallets of the devnet: random throwaway keys, kept in a file only its owner can read."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from eth_account import Account
from eth_account.signers.local import LocalAccount
from web3 import Web3
from web3.contract import Contract

from tinybrain.devnet.token import give_ether, mint
from tinybrain.errors import ConfigError
from tinybrain.usdc import Usdc

CALLER_USDC = Usdc(100_000_000)
TREASURY_USDC = Usdc(10_000_000)


@dataclass(frozen=True, slots=True)
class DevnetWallets:
    """Who is who on the devnet.

    The caller asks and pays; the treasury is paid and buys; gas settles the treasury's income;
    the provider sells the larger model; the facilitator settles the provider's income.
    """

    caller: LocalAccount
    treasury: LocalAccount
    gas: LocalAccount
    provider: LocalAccount
    facilitator: LocalAccount

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Read the keys from `path`, or make new ones and keep them there (mode 0600).

        Raises:
            ConfigError: The file is there and cannot be understood.
        """
        if not path.exists():
            _write(path, {field.name: Account.create().key.to_0x_hex() for field in fields(cls)})
        try:
            keys = json.loads(path.read_text())
            return cls(**{name: Account.from_key(key) for name, key in keys.items()})
        except (ValueError, TypeError, AttributeError):
            raise ConfigError(
                f"{path} is damaged: delete it and the devnet makes new keys."
            ) from None

    def fund(self, web3: Web3, token: Contract) -> None:
        """Give them money, once on each chain: ether to all, USDC to caller and treasury."""
        # The caller never pays gas, so it keeps the ether that shows it was funded.
        if web3.eth.get_balance(self.caller.address):
            return
        mint(web3, token, self.caller.address, CALLER_USDC)
        mint(web3, token, self.treasury.address, TREASURY_USDC)
        for wallet in (self.treasury, self.gas, self.provider, self.facilitator, self.caller):
            give_ether(web3, wallet.address)


def private_key(wallet: LocalAccount) -> str:
    """A wallet's key, 0x and 64 hexadecimal digits."""
    return f"0x{wallet.key.hex()}"


def _write(path: Path, keys: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(dict(keys), file, indent=2)
    draft.rename(path)
