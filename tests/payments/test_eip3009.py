"""EIP-3009 by hand gives what the libraries give, and refuses what the token refuses."""

import pytest
from eth_account import Account
from pydantic import ValidationError
from web3 import Web3

from tinybrain.networks import USDC_BY_NETWORK
from tinybrain.payments.eip3009 import Authorization, Domain, calldata, recover_signer, sign

NETWORK = "eip155:84532"
ASSET = USDC_BY_NETWORK[NETWORK]
DOMAIN = Domain.of(NETWORK, ASSET)
PAYER = Account.from_key(f"0x{'42' * 32}")
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
FIELDS = ("from", "to", "value", "validAfter", "validBefore", "nonce")
TYPES = ("address", "address", "uint256", "uint256", "uint256", "bytes32")
WIRE = {
    "from": PAYER.address,
    "to": f"0x{'aB' * 20}",
    "value": "10000",
    "validAfter": "7",
    "validBefore": "1800000000",
    "nonce": f"0x{'cd' * 32}",
}
AUTHORIZATION = Authorization.model_validate(WIRE)
SIGNATURE = sign(AUTHORIZATION, PAYER.key.to_0x_hex(), DOMAIN)


def test_the_signature_is_that_of_typed_data():
    signed = PAYER.sign_typed_data(
        {
            "name": ASSET.name,
            "version": ASSET.version,
            "chainId": 84532,
            "verifyingContract": ASSET.address,
        },
        {
            "TransferWithAuthorization": [
                {"name": name, "type": type_} for name, type_ in zip(FIELDS, TYPES, strict=True)
            ]
        },
        WIRE | {"value": 10_000, "validAfter": 7, "validBefore": 1_800_000_000},
    )
    assert signed.signature.to_0x_hex() == SIGNATURE


def test_the_signer_is_recovered_also_when_v_counts_from_zero():
    from_zero = f"{SIGNATURE[:-2]}{int(SIGNATURE[-2:], 16) - 27:02x}"
    for signature in (SIGNATURE, from_zero):
        assert recover_signer(AUTHORIZATION, signature, DOMAIN) == PAYER.address


def test_another_authorization_has_another_signer():
    other = AUTHORIZATION.model_copy(update={"value": 10_001})
    assert recover_signer(other, SIGNATURE, DOMAIN) != PAYER.address


@pytest.mark.parametrize("v", ["1a", "1d", "1e", "ff"])
def test_a_v_that_the_token_refuses_has_no_signer(v):
    assert recover_signer(AUTHORIZATION, SIGNATURE[:-2] + v, DOMAIN) is None


def test_a_high_s_has_no_signer():
    s, v = int(SIGNATURE[66:130], 16), int(SIGNATURE[130:], 16)
    malleated = f"{SIGNATURE[:66]}{ORDER - s:064x}{55 - v:02x}"
    assert recover_signer(AUTHORIZATION, malleated, DOMAIN) is None


@pytest.mark.parametrize("signature", ["", "0x", "0x1234", f"0x{'00' * 65}", "0xzz"])
def test_nonsense_has_no_signer(signature):
    assert recover_signer(AUTHORIZATION, signature, DOMAIN) is None


@pytest.mark.parametrize(
    ("signature", "types"),
    [(SIGNATURE, ("uint8", "bytes32", "bytes32")), (f"0x{'ab' * 77}", ("bytes",))],
)
def test_the_call_is_encoded_as_web3_does(signature, types):
    raw = bytes.fromhex(signature[2:])
    arguments = [raw[64], raw[:32], raw[32:64]] if len(types) == 3 else [raw]
    inputs = [{"name": f"p{i}", "type": type_} for i, type_ in enumerate(TYPES + types)]
    abi = [{"type": "function", "name": "transferWithAuthorization", "inputs": inputs}]
    contract = Web3().eth.contract(abi=abi)
    values = [Web3.to_checksum_address(WIRE["from"]), Web3.to_checksum_address(WIRE["to"])]
    values += [10_000, 7, 1_800_000_000, bytes.fromhex("cd" * 32), *arguments]
    expected = contract.encode_abi("transferWithAuthorization", args=values)
    assert calldata(AUTHORIZATION, signature) == expected


def test_the_wire_format_survives_the_round_trip():
    assert AUTHORIZATION.to_wire() == WIRE


@pytest.mark.parametrize(
    "change", [{"value": "-1"}, {"value": str(2**256)}, {"nonce": "0x12"}, {"from": "0x"}]
)
def test_what_no_authorization_can_hold_is_refused(change):
    with pytest.raises(ValidationError):
        Authorization.model_validate(WIRE | change)
