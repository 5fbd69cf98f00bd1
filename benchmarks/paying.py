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
from web3 import Web3

from tinybrain.config import USDC_BY_NETWORK, Settings, load_settings
from tinybrain.devnet.chain import NETWORK, Chain, control
from tinybrain.devnet.processes import claim_port
from tinybrain.devnet.token import give_ether, mint, place_usdc
from tinybrain.devnet.tools import install_tools
from tinybrain.devnet.wallets import private_key
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
ANY_AMOUNT = Usdc(10**12)


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
        self.web3: Web3 = self._chain.wait_until_ready()
        self._token = place_usdc(self.web3, tools)
        self._pay_to = Account.create()
        give_ether(self.web3, self._pay_to.address)

    def new_payer(self, amount: int) -> Payer:
        """A payer with so much atomic USDC."""
        account = Account.create()
        mint(self.web3, self._token, account.address, Usdc(amount))
        return Payer(account.address, private_key(account))

    def new_gas_key(self) -> str:
        """The key of a wallet that holds one ether."""
        account = Account.create()
        give_ether(self.web3, account.address)
        return private_key(account)

    def settings(self, ledger_url: str) -> Settings:
        """Of a service with a ledger and a gas wallet of its own that trusts every payer."""
        return load_settings(
            network=NETWORK,
            rpc_url=self._chain.url,
            asset=TOKEN.address,
            asset_name=TOKEN.name,
            asset_version=TOKEN.version,
            pay_to=self._pay_to.address,
            treasury_private_key=private_key(self._pay_to),
            facilitator="own",
            gas_private_key=self.new_gas_key(),
            ledger_url=ledger_url,
            max_unsettled=ANY_AMOUNT,
            max_unsettled_per_payer=ANY_AMOUNT,
        )

    def mine(self, blocks: int) -> None:
        """Make empty blocks, which a chain without traffic does not have."""
        control(self.web3, "mine", hex(blocks))

    def gas_used(self, transaction: str) -> int:
        """Units of gas that a mined transaction took."""
        return int(self.web3.eth.get_transaction_receipt(transaction)["gasUsed"])  # type: ignore[arg-type]

    @property
    def pid(self) -> int:
        """The process of the chain."""
        return self._chain.process.pid


def new_payment(merchant: Merchant, payer: Payer) -> PaymentHeader:
    """A new payment for one answer, as the gateway reads it."""
    terms = merchant.requirements(PRODUCT).model_dump(by_alias=True)
    header = {"PAYMENT-SIGNATURE": [payer.pay(terms)]}
    payment = read_payment(lambda name: header.get(name, []))
    assert payment is not None
    return payment
