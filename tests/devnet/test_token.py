"""USDC on the devnet is Circle's, where Base Sepolia has it."""

import secrets
import time

import pytest
from web3.exceptions import ContractLogicError

from tinybrain.devnet.chain import CHAIN_ID
from tinybrain.devnet.token import MULTICALL3, USDC, place_usdc

pytestmark = pytest.mark.chain
TYPES = {
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}


def authorize(payer, receiver, chain_id):
    message = {
        "from": payer.address,
        "to": receiver,
        "value": 5,
        "validAfter": 0,
        "validBefore": int(time.time()) + 60,
        "nonce": secrets.token_bytes(32),
    }
    domain = {"name": "USDC", "version": "2", "chainId": chain_id, "verifyingContract": USDC}
    return [*message.values(), payer.sign_typed_data(domain, TYPES, message).signature]


def test_it_has_the_address_name_version_and_decimals_of_base_sepolia(chain):
    assert USDC == "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
    calls = chain.token.functions
    told = (calls.name().call(), calls.version().call(), calls.decimals().call())
    assert told == ("USDC", "2", 6)


@pytest.mark.parametrize(("chain_id", "valid"), [(CHAIN_ID, True), (8453, False)])
def test_a_signature_counts_under_its_domain_only(chain, chain_id, valid):
    payer, receiver = chain.new_wallet(), chain.new_wallet(0).address
    arguments = authorize(payer, receiver, chain_id)
    transfer = chain.token.get_function_by_signature(
        "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)"
    )(*arguments)
    if valid:
        transfer.call()
    else:
        with pytest.raises(ContractLogicError, match="invalid signature"):
            transfer.call()


def test_placing_it_again_changes_nothing(chain, devnet_tools):
    before = chain.web3.eth.block_number, chain.token.functions.totalSupply().call()
    place_usdc(chain.web3, devnet_tools)
    assert (chain.web3.eth.block_number, chain.token.functions.totalSupply().call()) == before


def test_multicall3_answers_at_its_canonical_address(chain):
    code = chain.web3.eth.get_code(MULTICALL3)
    assert len(code) == 5561
    selector = chain.web3.keccak(text="getChainId()")[:4]
    answer = chain.web3.eth.call({"to": MULTICALL3, "data": selector})
    assert int.from_bytes(answer) == CHAIN_ID
