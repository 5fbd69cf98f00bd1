"""A local chain with Circle's USDC, and payers on it who sign what they are asked for.

A payment is made and read as the header that a caller sends. Knows neither ledger nor gateway.
"""

import base64
import json
import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account

from tinybrain.config import Settings, load_settings
from tinybrain.devnet.chain import NETWORK, Chain, control
from tinybrain.devnet.processes import claim_port
from tinybrain.devnet.token import give_ether, mint, place_usdc
from tinybrain.devnet.tools import install_tools
from tinybrain.devnet.wallets import private_key
from tinybrain.networks import USDC_BY_NETWORK
from tinybrain.payments.eip3009 import Authorization, Domain, sign
from tinybrain.payments.merchant import Merchant
from tinybrain.payments.pricing import Product
from tinybrain.payments.wire import PaymentHeader, read_payment
from tinybrain.usdc import Usdc

TOOLS = Path(__file__).parents[1] / ".tinybrain" / "tools"
TOKEN = USDC_BY_NETWORK[NETWORK]
DOMAIN = Domain.of(NETWORK, TOKEN)
BACKDATED_S = 600  # as stock clients do
PRODUCT = Product("/v1/chat/completions", "One chat answer", Usdc(10_000), "authorization")
REQUEST_HASH = "0" * 64


@dataclass(frozen=True, slots=True)
class Payer:
    """A wallet with money that signs without looking."""

    address: str
    key: str = field(repr=False)

    def pay(self, terms: Mapping[str, Any]) -> str:
        """The value of PAYMENT-SIGNATURE for one of a challenge's `accepts`."""
        now = int(time.time())
        authorization = Authorization.model_validate(
            {
                "from": self.address,
                "to": terms["payTo"],
                "value": int(terms["amount"]),
                "validAfter": now - BACKDATED_S,
                "validBefore": now + terms["maxTimeoutSeconds"],
                "nonce": f"0x{secrets.token_hex(32)}",
            }
        )
        payload = {
            "authorization": authorization.to_wire(),
            "signature": sign(authorization, self.key, DOMAIN),
        }
        document = {"x402Version": 2, "accepted": dict(terms), "payload": payload}
        return base64.b64encode(json.dumps(document).encode()).decode()


class LocalChain:
    """anvil with USDC; stopped by the stack."""

    def __init__(self, stack: ExitStack, home: Path) -> None:
        tools = install_tools(TOOLS)
        self._chain = Chain(
            tools.anvil,
            port=claim_port(0, what="the chain", option=""),
            state=home / "chain.json",
            log=home / "chain.log",
        )
        stack.callback(self._chain.stop)
        self._web3 = self._chain.wait_until_ready()
        self._token = place_usdc(self._web3, tools)
        self._pay_to = Account.create()
        give_ether(self._web3, self._pay_to.address)

    def new_payer(self, amount: int) -> Payer:
        """A payer with so much atomic USDC."""
        account = Account.create()
        mint(self._web3, self._token, account.address, Usdc(amount))
        return Payer(account.address, private_key(account))

    def environment(self, ledger_url: str) -> dict[str, str]:
        """Of a service with a ledger and a gas wallet of its own that trusts every payer."""
        return {
            "TINYBRAIN_NETWORK": NETWORK,
            "TINYBRAIN_RPC_URL": self._chain.url,
            "TINYBRAIN_ASSET": TOKEN.address,
            "TINYBRAIN_ASSET_NAME": TOKEN.name,
            "TINYBRAIN_ASSET_VERSION": TOKEN.version,
            "TINYBRAIN_PAY_TO": self._pay_to.address,
            "TINYBRAIN_TREASURY_PRIVATE_KEY": private_key(self._pay_to),
            "TINYBRAIN_FACILITATOR": "own",
            "TINYBRAIN_GAS_PRIVATE_KEY": self._new_gas_key(),
            "TINYBRAIN_LEDGER_URL": ledger_url,
            "TINYBRAIN_MAX_UNSETTLED": "1000000",
            "TINYBRAIN_MAX_UNSETTLED_PER_PAYER": "1000000",
        }

    def settings(self, ledger_url: str) -> Settings:
        """The same, read."""
        named = self.environment(ledger_url).items()
        return load_settings(
            **{name.removeprefix("TINYBRAIN_").lower(): value for name, value in named}
        )

    def mine(self, blocks: int) -> None:
        """Make empty blocks, which a chain without traffic does not have."""
        control(self._web3, "mine", hex(blocks))

    def gas_used(self, transaction: str) -> int:
        """Units of gas that a mined transaction took."""
        return int(self._web3.eth.get_transaction_receipt(transaction)["gasUsed"])

    def _new_gas_key(self) -> str:
        account = Account.create()
        give_ether(self._web3, account.address)
        return private_key(account)


def new_payment(merchant: Merchant, payer: Payer) -> PaymentHeader:
    """A new payment for one answer, as the gateway reads it."""
    terms = merchant.requirements(PRODUCT).model_dump(by_alias=True)
    header = {"PAYMENT-SIGNATURE": [payer.pay(terms)]}
    payment = read_payment(lambda name: header.get(name, []))
    assert payment is not None
    return payment
