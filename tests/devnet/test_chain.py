"""The local chain keeps its state and says clearly why it cannot start."""

import pytest

from tinybrain.devnet.chain import CHAIN_ID, Chain
from tinybrain.devnet.processes import ProcessFailed, claim_port, listens
from tinybrain.errors import ConfigError

pytestmark = pytest.mark.chain


def test_it_is_base_sepolia_by_its_id_and_knows_no_accounts(chain):
    assert chain.web3.eth.chain_id == CHAIN_ID
    assert chain.web3.eth.accounts == []


def test_balances_nonces_and_wallets_survive_a_restart(start_chain, tmp_path):
    first = start_chain(tmp_path)
    payer = first.new_wallet(dollars=3)
    transaction = {"to": payer.address, "value": 0, "gas": 21_000, "nonce": 0, "chainId": CHAIN_ID}
    fees = {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9}
    signed = payer.sign_transaction({**transaction, **fees})
    sent = first.web3.eth.send_raw_transaction(signed.raw_transaction)
    first.web3.eth.wait_for_transaction_receipt(sent)
    caller, block = first.wallets.caller, first.web3.eth.block_number
    first.stop()

    second = start_chain(tmp_path)
    assert second.web3.eth.block_number == block
    assert second.balance(payer.address) == 3_000_000
    assert second.web3.eth.get_transaction_count(payer.address) == 1
    assert second.wallets.caller.key == caller.key
    assert second.balance(caller.address) == 100_000_000
    second.stop()


def test_a_taken_port_is_named_with_its_option(chain):
    port = int(chain.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=rf"Port {port} is in use.*--chain-port"):
        claim_port(port, what="the devnet's chain", option="--chain-port")


def test_if_it_dies_the_end_of_its_log_is_told(chain, devnet_tools, tmp_path):
    port = int(chain.url.rpartition(":")[2])
    clash = Chain(
        devnet_tools.anvil, port=port, state=tmp_path / "state", log=tmp_path / "chain.log"
    )
    clash.process._process.wait(60)
    with pytest.raises(ProcessFailed, match="Address already in use"):
        clash.wait_until_ready()
    clash.stop()


def test_it_is_gone_after_stopping(start_chain, tmp_path):
    chain = start_chain(tmp_path)
    chain.stop()
    assert not listens(int(chain.url.rpartition(":")[2]))
