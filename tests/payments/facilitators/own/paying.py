"""Payments of the local chain's token, its issuer's calls, and facilitators of our own."""

import os
import time

from x402.schemas import PaymentPayload

from tinybrain.devnet.chain import NETWORK
from tinybrain.devnet.facilitator import NoStore
from tinybrain.devnet.token import ISSUER, USDC, _acting_as, _send
from tinybrain.devnet.wallets import private_key
from tinybrain.networks import USDC_BY_NETWORK
from tinybrain.payments.eip3009 import Authorization, Domain, sign
from tinybrain.payments.facilitators.own import OwnFacilitator
from tinybrain.payments.rpc import RPC_TIMEOUT_S, Rpc
from tinybrain.payments.wallet import HotWallet

PRICE = 10_000
TOKEN = USDC_BY_NETWORK[NETWORK]
DOMAIN = Domain.of(NETWORK, TOKEN)


def pay(wallet, terms, **changes):
    """What a stock client sends, built faster."""
    fields = {
        "payer": wallet.address,
        "to": terms.pay_to,
        "value": int(terms.amount),
        "valid_after": 0,
        "valid_before": int(time.time()) + 300,
        "nonce": f"0x{os.urandom(32).hex()}",
    }
    authorization = Authorization(**(fields | changes))
    signed = {
        "authorization": authorization.to_wire(),
        "signature": sign(authorization, private_key(wallet), DOMAIN),
    }
    return PaymentPayload(x402_version=2, accepted=terms, payload=signed)


def own(chain, url=None, key=None, timeout_s=RPC_TIMEOUT_S, **options):
    rpc = Rpc(url or chain.url, timeout_s=timeout_s)
    wallet = HotWallet(key or private_key(chain.new_wallet(0)), rpc, NETWORK, NoStore())
    return OwnFacilitator(rpc, wallet, NETWORK, TOKEN.address, **options)


def issuer_calls(chain, function, *arguments):
    with _acting_as(chain.web3, ISSUER):
        data = chain.token.encode_abi(function, args=arguments)
        _send(chain.web3, ISSUER, {"to": USDC, "data": data})


def call_token(chain, sender, data, **options):
    """Send a call without waiting for its receipt."""
    transaction = {"to": USDC, "data": data, "gas": 200_000, "chainId": 84532, "nonce": 0}
    transaction |= {"maxFeePerGas": 10**12, "maxPriorityFeePerGas": 10**11, "value": 0}
    signed = sender.sign_transaction(transaction | options)
    return chain.web3.eth.send_raw_transaction(signed.raw_transaction)


def reasons(results):
    return [result.error_reason for result in results]
