"""USDC on the local chain: Circle's own FiatTokenV2_2 at the address of Base Sepolia's USDC.

Name, version, address and chain id are those of Base Sepolia, so stock x402 clients pay with it
as they are. Source: circlefin/stablecoin-evm; the order of the calls is that of its deployment.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eth_typing import ChecksumAddress, HexStr
from web3 import Web3
from web3.contract import Contract
from web3.types import TxParams

from tinybrain.devnet.chain import NETWORK, control
from tinybrain.devnet.tools import Tools
from tinybrain.errors import PaymentServiceError
from tinybrain.networks import USDC_BY_NETWORK
from tinybrain.usdc import Usdc

USDC = Web3.to_checksum_address(USDC_BY_NETWORK[NETWORK].address)
DOMAIN_NAME = USDC_BY_NETWORK[NETWORK].name
MULTICALL3 = Web3.to_checksum_address("0xcA11bde05977b3631167028862bE2a173976CA11")
# Accounts without a known key; anvil sends for them. The proxy's admin must be another than the
# issuer, because a call of the admin is not passed on to the token.
ISSUER = Web3.to_checksum_address("0x00000000000000000000000000000000000155E2")
PROXY_ADMIN = Web3.to_checksum_address("0x00000000000000000000000000000000000AD111")
IMPLEMENTATION = "v2/FiatTokenV2_2"
MINT_ALLOWANCE = 2**255
# Where the proxy keeps its admin and its implementation; the names are those its code hashes.
PROXY_SLOTS = ("org.zeppelinos.proxy.implementation", "org.zeppelinos.proxy.admin")
ETHER = 10**18


def place_usdc(web3: Web3, tools: Tools) -> Contract:
    """Put USDC and Multicall3 on the chain; what is there already is left alone."""
    token = web3.eth.contract(USDC, abi=_artifact(tools, IMPLEMENTATION)["abi"])
    if not web3.eth.get_code(USDC):
        with _acting_as(web3, ISSUER, PROXY_ADMIN):
            _place_proxy(web3, tools)
            _initialize(web3, token)
    if not web3.eth.get_code(MULTICALL3):
        with _acting_as(web3, ISSUER):
            placed = _deploy(web3, ISSUER, tools.multicall3)
        control(web3, "setCode", MULTICALL3, web3.eth.get_code(placed).to_0x_hex())
    return token


def mint(web3: Web3, token: Contract, receiver: str, amount: Usdc) -> None:
    """Create money for an address."""
    data = token.encode_abi("mint", args=[Web3.to_checksum_address(receiver), amount])
    with _acting_as(web3, ISSUER):
        _send(web3, ISSUER, {"to": USDC, "data": data})


def give_ether(web3: Web3, receiver: str) -> None:
    """Give an address one ether, for gas."""
    control(web3, "setBalance", receiver, hex(ETHER))


def _place_proxy(web3: Web3, tools: Tools) -> None:
    checker = _deploy(web3, ISSUER, _artifact(tools, "util/SignatureChecker")["bytecode"])
    implementation = _deploy(web3, ISSUER, _linked(_artifact(tools, IMPLEMENTATION), checker))
    argument = implementation.removeprefix("0x").rjust(64, "0")
    proxy = _deploy(web3, PROXY_ADMIN, _artifact(tools, "v1/FiatTokenProxy")["bytecode"] + argument)
    for name in PROXY_SLOTS:
        slot = Web3.keccak(text=name)
        value = web3.eth.get_storage_at(proxy, int.from_bytes(slot))
        control(web3, "setStorageAt", USDC, slot.to_0x_hex(), value.to_0x_hex())
    control(web3, "setCode", USDC, web3.eth.get_code(proxy).to_0x_hex())


def _initialize(web3: Web3, token: Contract) -> None:
    roles = [ISSUER] * 4  # master minter, pauser, blacklister, owner
    calls: list[tuple[str, list[object]]] = [
        ("initialize", ["USD Coin", "USDC", "USD", 6, *roles]),
        ("initializeV2", [DOMAIN_NAME]),
        ("initializeV2_1", [ISSUER]),
        ("initializeV2_2", [[], "USDC"]),
        ("configureMinter", [ISSUER, MINT_ALLOWANCE]),
    ]
    for function, arguments in calls:
        data = token.encode_abi(function, args=arguments)
        _send(web3, ISSUER, {"to": USDC, "data": data})


def _artifact(tools: Tools, path: str) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    artifact: dict[str, Any] = json.loads(
        (tools.contracts / f"{path}.sol" / f"{name}.json").read_text()
    )
    return artifact


def _linked(artifact: dict[str, Any], library: ChecksumAddress) -> str:
    """The bytecode with the library's address at each place the compiler left for it."""
    code = artifact["bytecode"].removeprefix("0x")
    digits = library.removeprefix("0x").lower()
    for libraries in artifact["linkReferences"].values():
        for places in libraries.values():
            for place in places:
                start = place["start"] * 2
                code = code[:start] + digits + code[start + len(digits) :]
    return f"0x{code}"


@contextmanager
def _acting_as(web3: Web3, *addresses: ChecksumAddress) -> Iterator[None]:
    for address in addresses:
        control(web3, "impersonateAccount", address)
        give_ether(web3, address)
    yield
    for address in addresses:
        control(web3, "stopImpersonatingAccount", address)


def _deploy(web3: Web3, sender: ChecksumAddress, bytecode: str) -> ChecksumAddress:
    address = _send(web3, sender, {"data": HexStr(bytecode)})
    if address is None:
        raise PaymentServiceError("The local chain did not place a contract.")
    return address


def _send(web3: Web3, sender: ChecksumAddress, transaction: TxParams) -> ChecksumAddress | None:
    tx_hash = web3.eth.send_transaction({"from": sender, **transaction})
    receipt = web3.eth.wait_for_transaction_receipt(tx_hash, poll_latency=0.01)
    if receipt["status"] != 1:
        raise PaymentServiceError(f"The local chain reverted {tx_hash.to_0x_hex()}.")
    return receipt.get("contractAddress")
