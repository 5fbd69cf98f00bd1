"""EIP-3009: authorizations that move a token, from their signature to their trace in the logs.

Knows Circle's FiatToken: the two overloads of transferWithAuthorization, its EIP-712 domain, and
that AuthorizationUsed is followed at once by the Transfer. Asks no node.
Source: EIP-3009, EIP-712, circlefin/stablecoin-evm.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from coincurve import PrivateKey, PublicKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from pydantic import BaseModel, ConfigDict, Field

from tinybrain.networks import Asset

ADDRESS = r"^0x[0-9a-fA-F]{40}$"
NONCE = r"^0x[0-9a-fA-F]{64}$"
HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Of secp256k1; the token refuses a signature whose s is above. Source: EIP-2."""

DOMAIN_TYPE = keccak(
    text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
TRANSFER_TYPE = keccak(
    text="TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,"
    "uint256 validBefore,bytes32 nonce)"
)
WITH_VRS, WITH_BYTES = (
    keccak(
        text="transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,"
        f"{signature})"
    )[:4]
    for signature in ("uint8,bytes32,bytes32", "bytes")
)
"""Selectors of the overload for key holders and of that for contracts (ERC-1271)."""
USED, CANCELED, TRANSFER = (
    f"0x{keccak(text=event).hex()}"
    for event in (
        "AuthorizationUsed(address,bytes32)",
        "AuthorizationCanceled(address,bytes32)",
        "Transfer(address,address,uint256)",
    )
)
"""The events' first topics."""

ECDSA_LENGTH = 65
FIRST_V = 27
Log = dict[str, Any]
"""A log as a node's JSON has it."""


class Authorization(BaseModel):
    """What a payer signs; `value` in atomic units, times in Unix seconds.

    Read from x402's wire format, where numbers are strings; raises ValidationError.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    payer: str = Field(alias="from", pattern=ADDRESS)
    to: str = Field(pattern=ADDRESS)
    value: int = Field(ge=0, lt=2**256)
    valid_after: int = Field(alias="validAfter", ge=0, lt=2**63)
    valid_before: int = Field(alias="validBefore", ge=0, lt=2**63)
    nonce: str = Field(pattern=NONCE)

    @property
    def words(self) -> bytes:
        """Its six fields as Solidity's ABI has them, 32 bytes each."""
        return b"".join(
            (
                _word(self.payer),
                _word(self.to),
                self.value.to_bytes(32),
                self.valid_after.to_bytes(32),
                self.valid_before.to_bytes(32),
                _word(self.nonce),
            )
        )

    def to_wire(self) -> dict[str, str]:
        """The `authorization` of an x402 payload."""
        fields = self.model_dump(by_alias=True)
        return {name: str(value) for name, value in fields.items()}


@dataclass(frozen=True, slots=True)
class Domain:
    """The EIP-712 domain of a token on one chain."""

    separator: bytes

    @classmethod
    def of(cls, network: str, asset: Asset) -> "Domain":
        """That of a token on a CAIP-2 network such as eip155:8453."""
        chain_id = int(network.partition(":")[2])
        strings = keccak(text=asset.name) + keccak(text=asset.version)
        words = chain_id.to_bytes(32) + _word(asset.address)
        return cls(keccak(DOMAIN_TYPE + strings + words))

    def digest(self, authorization: Authorization) -> bytes:
        """The 32 bytes that are signed."""
        return keccak(b"\x19\x01" + self.separator + keccak(TRANSFER_TYPE + authorization.words))


def sign(authorization: Authorization, private_key: str, domain: Domain) -> str:
    """Sign; returns 0x and 65 bytes (r, s, v) in hexadecimal digits."""
    key = PrivateKey(bytes.fromhex(private_key.removeprefix("0x")))
    signature = key.sign_recoverable(domain.digest(authorization), hasher=None)
    return f"0x{signature[:-1].hex()}{signature[-1] + FIRST_V:02x}"


def recover_signer(authorization: Authorization, signature: str, domain: Domain) -> str | None:
    """The address whose key signed, with checksum; None if no key can have.

    A signature with a high s is none: the token refuses it.
    """
    try:
        r_s_v = bytes.fromhex(signature.removeprefix("0x"))
    except ValueError:
        return None
    if len(r_s_v) != ECDSA_LENGTH or int.from_bytes(r_s_v[32:64]) > HALF_ORDER:
        return None
    if (recovery_id := _v(r_s_v) - FIRST_V) not in (0, 1):
        return None
    recoverable = r_s_v[:64] + bytes([recovery_id])
    try:
        key = PublicKey.from_signature_and_message(
            recoverable, domain.digest(authorization), hasher=None
        )
    except ValueError:  # no point of the curve has this r
        return None
    return to_checksum_address(keccak(key.format(compressed=False)[1:])[-20:])


def calldata(authorization: Authorization, signature: str) -> str:
    """A call of transferWithAuthorization, 0x and hexadecimal digits.

    Raises:
        ValueError: The signature is not hexadecimal.
    """
    signed = bytes.fromhex(signature.removeprefix("0x"))
    if len(signed) == ECDSA_LENGTH:
        data = WITH_VRS + authorization.words + _v(signed).to_bytes(32) + signed[:64]
    else:
        offset = (7 * 32).to_bytes(32)
        padded = signed.ljust(-(-len(signed) // 32) * 32, b"\0")
        data = WITH_BYTES + authorization.words + offset + len(signed).to_bytes(32) + padded
    return f"0x{data.hex()}"


class Transfer(NamedTuple):
    """One Transfer of the token, and the authorization that made it if it was one."""

    transaction: str
    block: int
    log_index: int
    sender: str
    receiver: str
    value: int
    nonce: str | None = None

    def pays(self, authorization: Authorization) -> bool:
        """Whether it is the transfer that this authorization was signed for."""
        return (self.sender, self.receiver, self.value, self.nonce) == (
            authorization.payer.lower(),
            authorization.to.lower(),
            authorization.value,
            authorization.nonce.lower(),
        )


def transfers(logs: Iterable[Log], asset: str) -> Iterator[Transfer]:
    """The token's transfers among logs of whole transactions; addresses in lower case."""
    used: dict[tuple[str, int], Log] = {}
    for log in logs:
        if log["address"].lower() != asset.lower():
            continue
        place = (log["transactionHash"], int(log["logIndex"], 16))
        if log["topics"][0] == USED:
            used[place] = log
        elif log["topics"][0] == TRANSFER:
            yield _transfer(log, used.get((place[0], place[1] - 1)))


def _transfer(log: Log, before: Log | None) -> Transfer:
    _, sender, receiver = log["topics"]
    nonce = before["topics"][2] if before and before["topics"][1] == sender else None
    return Transfer(
        transaction=log["transactionHash"],
        block=int(log["blockNumber"], 16),
        log_index=int(log["logIndex"], 16),
        sender=f"0x{sender[-40:]}",
        receiver=f"0x{receiver[-40:]}",
        value=int(log["data"], 16),
        nonce=nonce,
    )


def topic(address: str) -> str:
    """An address as a topic of a log or a word of a call."""
    return f"0x{_word(address).hex()}"


def _word(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x")).rjust(32, b"\0")


def _v(signature: bytes) -> int:
    """27 or 28 for a good one; some wallets write 0 or 1."""
    v = signature[64]
    return v + FIRST_V if v < FIRST_V else v
