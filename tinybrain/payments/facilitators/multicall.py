"""Multicall3: several calls of contracts in one, each of which may fail by itself.

Source: mds1/multicall3; it has the same address on every chain.
"""

from collections.abc import Iterable

from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
AGGREGATE3 = keccak(text="aggregate3((address,bool,bytes)[])")[:4]


def aggregate(target: str, calls: Iterable[str]) -> str:
    """The calldata that makes all calls of one contract; 0x and hexadecimal digits."""
    items = [(target, True, bytes.fromhex(data.removeprefix("0x"))) for data in calls]
    return f"0x{(AGGREGATE3 + encode(['(address,bool,bytes)[]'], [items])).hex()}"


def outcomes(returned: str) -> list[tuple[bool, bytes]]:
    """For each call whether it succeeded, and what it returned or reverted with."""
    (items,) = decode(["(bool,bytes)[]"], bytes.fromhex(returned.removeprefix("0x")))
    return list(items)
