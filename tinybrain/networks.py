"""Networks on which USDC is known here (CAIP-2 names), and public endpoints of them."""

from typing import NamedTuple


class Asset(NamedTuple):
    """A token that can be paid with, and its EIP-712 domain."""

    address: str
    name: str
    version: str


USDC_BY_NETWORK = {
    "eip155:8453": Asset("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", "2"),
    "eip155:84532": Asset("0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", "2"),
}
PUBLIC_RPC_BY_NETWORK = {
    "eip155:8453": "https://mainnet.base.org",
    "eip155:84532": "https://sepolia.base.org",
}
