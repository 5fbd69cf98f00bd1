"""The hot wallet: no gap in its nonces, whatever the node does."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from web3.exceptions import TimeExhausted

from tinybrain.devnet.chain import control
from tinybrain.devnet.wallets import private_key
from tinybrain.payments.wallet import HotWallet

pytestmark = pytest.mark.chain


@pytest.fixture
def wallet(chain):
    return HotWallet(private_key(chain.new_wallet(0)), chain.url, confirmation_timeout_s=5)


@pytest.fixture
def paused_mining(chain):
    chain.web3.provider.make_request("evm_setAutomine", [False])
    yield
    chain.web3.provider.make_request("evm_setAutomine", [True])
    control(chain.web3, "mine", "0x1")


def send(wallet):
    return wallet.send_transaction(wallet.address, b"")


def break_broadcast(wallet, *, taken):
    """The next broadcast fails; with `taken`, only its answer is lost."""
    real = wallet.rpc._make_request

    def fail_once(method, data):
        if method == "eth_sendRawTransaction":
            wallet.rpc._make_request = real
            if taken:
                real(method, data)
            raise requests.ReadTimeout("no answer")
        return real(method, data)

    wallet.rpc._make_request = fail_once


def test_a_failed_broadcast_leaves_no_gap(chain, wallet):
    assert wallet.wait_for_transaction_receipt(send(wallet)).status == 1
    break_broadcast(wallet, taken=False)
    with pytest.raises(requests.ReadTimeout):
        send(wallet)
    assert wallet.wait_for_transaction_receipt(send(wallet)).status == 1
    assert chain.web3.eth.get_transaction_count(wallet.address) == 2


def test_a_broadcast_whose_answer_was_lost_counts_as_sent(chain, wallet):
    break_broadcast(wallet, taken=True)
    assert wallet.wait_for_transaction_receipt(send(wallet)).status == 1
    assert chain.web3.eth.get_transaction_count(wallet.address) == 1


def test_a_nonce_taken_by_another_process_costs_one_failure(chain, wallet):
    wallet.wait_for_transaction_receipt(send(wallet))
    other = HotWallet(private_key(wallet._account), chain.url)
    other.wait_for_transaction_receipt(send(other))
    with pytest.raises(Exception, match="nonce too low"):
        send(wallet)
    assert wallet.wait_for_transaction_receipt(send(wallet)).status == 1


def test_twenty_threads_use_twenty_consecutive_nonces(chain, wallet):
    with ThreadPoolExecutor(20) as threads:
        hashes = list(threads.map(lambda _: send(wallet), range(20)))
    nonces = sorted(chain.web3.eth.get_transaction(tx_hash)["nonce"] for tx_hash in hashes)
    assert nonces == list(range(20))


def test_fees_are_those_of_eip_1559(chain, wallet):
    transaction = chain.web3.eth.get_transaction(send(wallet))
    assert transaction["type"] == 2
    assert transaction["maxFeePerGas"] > transaction["maxPriorityFeePerGas"] > 0


def test_a_stuck_transaction_is_replaced_and_found_under_its_first_hash(
    chain, wallet, paused_mining
):
    first = send(wallet)
    fee = chain.web3.eth.get_transaction(first)["maxFeePerGas"]
    (second,) = wallet.replace_stuck(older_than_s=0)
    assert chain.web3.eth.get_transaction(second)["maxFeePerGas"] >= fee * 9 // 8
    control(chain.web3, "mine", "0x1")
    receipt = wallet.wait_for_transaction_receipt(first)
    assert (receipt.status, receipt.tx_hash) == (1, second)
    assert wallet.mined_hash(first) == second


def test_waiting_ends_with_an_error_and_the_transaction_can_still_be_mined(chain, paused_mining):
    wallet = HotWallet(private_key(chain.new_wallet(0)), chain.url, confirmation_timeout_s=0.3)
    sent = send(wallet)
    with pytest.raises(TimeExhausted):
        wallet.wait_for_transaction_receipt(sent)
    control(chain.web3, "mine", "0x1")
    assert wallet.wait_for_transaction_receipt(sent).status == 1
