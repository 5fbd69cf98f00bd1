"""What became of an authorization, by the chain's own evidence."""

import os
import time

import pytest
from web3 import Web3

from tinybrain.devnet.chain import NETWORK, control
from tinybrain.devnet.token import USDC
from tinybrain.devnet.wallets import private_key
from tinybrain.errors import PaymentServiceError
from tinybrain.networks import USDC_BY_NETWORK
from tinybrain.payments.chain import Chain, Use
from tinybrain.payments.eip3009 import Authorization, Domain, calldata, sign
from tinybrain.payments.rpc import Rpc, RpcRefused

pytestmark = pytest.mark.chain
DOMAIN = Domain.of(NETWORK, USDC_BY_NETWORK[NETWORK])


class StingyRpc(Rpc):
    """A provider that takes log ranges of two blocks at most."""

    async def call(self, method, *params):
        if method == "eth_getLogs":
            asked = params[0]
            if int(asked["toBlock"], 16) - int(asked["fromBlock"], 16) > 1:
                raise RpcRefused(-32005, "range too wide")
        return await super().call(method, *params)


@pytest.fixture
async def reader(chain):
    rpc = Rpc(chain.url)
    yield Chain(rpc, USDC)
    await rpc.aclose()


@pytest.fixture
def payer(chain):
    return chain.new_wallet()


@pytest.fixture
def shop(chain):
    return chain.new_wallet(0).address


def authorize(payer, to, value=10_000, nonce=None):
    return Authorization(
        payer=payer.address,
        to=to,
        value=value,
        valid_after=0,
        valid_before=int(time.time()) + 300,
        nonce=nonce or f"0x{os.urandom(32).hex()}",
    )


def send(chain, sender, data):
    transaction = {"from": sender.address, "to": USDC, "data": data, "gas": 200_000}
    transaction |= {"nonce": chain.web3.eth.get_transaction_count(sender.address)}
    transaction |= {"maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**9, "chainId": 84532}
    signed = sender.sign_transaction(transaction)
    tx_hash = chain.web3.eth.send_raw_transaction(signed.raw_transaction)
    receipt = chain.web3.eth.wait_for_transaction_receipt(tx_hash, poll_latency=0.01)
    assert receipt["status"] == 1
    return tx_hash.to_0x_hex(), receipt["blockNumber"]


def transfer(chain, payer, authorization):
    signature = sign(authorization, private_key(payer), DOMAIN)
    return send(chain, payer, calldata(authorization, signature))


async def use_of(reader, authorization, pay_to=None, **options):
    return await reader.authorization_use(
        authorization.payer,
        authorization.nonce,
        pay_to=pay_to or authorization.to,
        amount=10_000,
        since=int(time.time()) - 600,
        until=authorization.valid_before,
        **options,
    )


async def test_an_authorization_that_nobody_used_is_unused(reader, payer, shop):
    assert (await use_of(reader, authorize(payer, shop))).use is Use.UNUSED


async def test_a_transfer_is_found_with_its_transaction_and_block(chain, reader, payer, shop):
    authorization = authorize(payer, shop)
    transaction, block = transfer(chain, payer, authorization)
    assert await use_of(reader, authorization) == (Use.TRANSFERRED, transaction, block)


async def test_up_to_an_earlier_block_it_is_unused(chain, reader, payer, shop):
    authorization = authorize(payer, shop)
    _, block = transfer(chain, payer, authorization)
    assert (await use_of(reader, authorization, block_tag=block - 1)).use is Use.UNUSED


@pytest.mark.parametrize(("value", "elsewhere"), [(9_999, False), (10_000, True)])
async def test_a_nonce_that_moved_other_money_is_cancelled(
    chain, reader, payer, shop, value, elsewhere
):
    other = chain.new_wallet(0).address if elsewhere else shop
    spent = authorize(payer, other, value)
    transfer(chain, payer, spent)
    assert (await use_of(reader, spent, pay_to=shop)).use is Use.CANCELLED


async def test_a_cancelled_authorization_is_cancelled(chain, reader, payer, shop):
    authorization = authorize(payer, shop)
    types = {
        "CancelAuthorization": [
            {"name": "authorizer", "type": "address"},
            {"name": "nonce", "type": "bytes32"},
        ]
    }
    domain = {"name": "USDC", "version": "2", "chainId": 84532, "verifyingContract": USDC}
    message = {"authorizer": payer.address, "nonce": authorization.nonce}
    signed = payer.sign_typed_data(domain, types, message)
    selector = Web3.keccak(text="cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)")[:4]
    words = [int(payer.address, 16), int(authorization.nonce, 16), signed.v, signed.r, signed.s]
    send(chain, payer, selector.to_0x_hex() + "".join(f"{word:064x}" for word in words))
    assert (await use_of(reader, authorization)).use is Use.CANCELLED


async def test_a_use_that_no_log_explains_yet_is_no_verdict(chain, reader, payer, shop):
    authorization = authorize(payer, shop)
    transfer(chain, payer, authorization)
    control(chain.web3, "mine", "0x1")
    with pytest.raises(PaymentServiceError, match="Try again"):
        await reader.authorization_use(
            payer.address,
            authorization.nonce,
            pay_to=shop,
            amount=10_000,
            since=0,
            until=1,  # as if the log stood elsewhere
        )


async def test_after_a_reorganisation_a_transaction_is_gone(chain, reader, payer, shop):
    transaction, block = transfer(chain, payer, authorize(payer, shop))
    assert await reader.still_there(transaction) == block
    control(chain.web3, "mine", "0x2")
    control(chain.web3, "rollback", 3)
    assert await reader.still_there(transaction) is None


async def test_balances_are_read_now_and_as_they_were(chain, reader, payer, shop):
    _, block = transfer(chain, payer, authorize(payer, shop))
    assert await reader.balance(shop) == 10_000
    assert await reader.balance(shop, block - 1) == 0
    assert await reader.head() == block
    assert await reader.chain_id() == 84532
    assert 0 < await reader.native_balance(payer.address) < 10**18


async def test_all_transfers_of_an_address_are_listed_with_their_nonces(chain, payer, shop):
    first = head(chain) + 1
    authorization = authorize(payer, shop)
    transaction, block = transfer(chain, payer, authorization)
    plain = chain.token.encode_abi("transfer", args=[shop, 5])
    send(chain, payer, plain)
    send(chain, chain.new_wallet(), plain)
    rpc = StingyRpc(chain.url)
    found = await Chain(rpc, USDC).transfers([shop], from_block=first, to_block=head(chain))
    await rpc.aclose()
    assert [(each.value, each.nonce) for each in found] == [
        (10_000, authorization.nonce),
        (5, None),
        (5, None),
    ]
    assert (found[0].transaction, found[0].block) == (transaction, block)
    assert (found[0].sender, found[0].receiver) == (payer.address.lower(), shop.lower())


async def test_where_there_is_no_token_no_balance_is_invented(chain, shop):
    rpc = Rpc(chain.url)
    with pytest.raises(PaymentServiceError, match="no token"):
        await Chain(rpc, shop).balance(shop)
    await rpc.aclose()


def head(chain):
    return chain.web3.eth.block_number
