"""The hot wallet: no gap in its nonces, nothing signed is lost, whatever the node does."""

import asyncio

import pytest
from eth_account import Account

from tinybrain.devnet.chain import NETWORK, control
from tinybrain.devnet.wallets import private_key
from tinybrain.errors import LedgerUnavailable, PaymentServiceError
from tinybrain.payments import wallet as wallet_module
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.wallet import HotWallet

pytestmark = pytest.mark.chain
GAS = 30_000
SPIKE = 10**10  # wei; the local chain's base fee is far below
PATIENCE_S = 30  # ends only a test that fails


class Store:
    """Outlives the wallets, as the ledger outlives a process."""

    def __init__(self):
        self.open = {}
        self.closed = {}

    async def record(self, tx):
        self.open[tx.hash] = tx

    async def unmined(self, wallet):
        return [tx for tx in self.open.values() if tx.wallet == wallet]

    async def mined(self, wallet, nonce, tx_hash):
        self.closed[nonce] = tx_hash
        for tx in [tx for tx in self.open.values() if (tx.wallet, tx.nonce) == (wallet, nonce)]:
            del self.open[tx.hash]


class BrokenRpc(Rpc):
    """The next broadcast fails; with `taken`, only its answer is lost."""

    broken = None

    async def call(self, method, *params):
        if method == "eth_sendRawTransaction" and self.broken:
            taken, self.broken = self.broken == "taken", None
            if taken:
                await super().call(method, *params)
            raise PaymentServiceError("no answer")
        return await super().call(method, *params)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
async def rpc(chain):
    rpc = BrokenRpc(chain.url)
    yield rpc
    await rpc.aclose()


@pytest.fixture
async def start(chain, rpc, store):
    """Starts a wallet; each call is another process with the same key and ledger."""
    wallets = []
    key = private_key(chain.new_wallet(0))

    async def start(store=store, **options):
        wallet = HotWallet(key, rpc, NETWORK, store, **options)
        wallets.append(wallet)
        await wallet.resume()
        return wallet

    yield start
    for wallet in wallets:
        await wallet.aclose()


@pytest.fixture
async def wallet(start):
    return await start()


@pytest.fixture
def paused_mining(chain):
    chain.web3.provider.make_request("evm_setAutomine", [False])
    yield lambda: control(chain.web3, "mine", "0x1")
    chain.web3.provider.make_request("evm_setAutomine", [True])
    control(chain.web3, "mine", "0x1")


@pytest.fixture
def set_base_fee(chain):
    before = chain.web3.eth.get_block("latest")["baseFeePerGas"]
    yield lambda fee: control(chain.web3, "setNextBlockBaseFeePerGas", hex(fee))
    control(chain.web3, "setNextBlockBaseFeePerGas", hex(before))


async def send(wallet):
    return await wallet.send(wallet.address, "0x", GAS)


async def is_mined(wallet, tx_hash):
    receipt = await wallet.wait(tx_hash, PATIENCE_S)
    return receipt is not None and receipt.succeeded


def nonces(chain, wallet):
    return chain.web3.eth.get_transaction_count(wallet.address)


def pooled(chain, wallet, nonce):
    """The hash of the version of a transaction that the node would mine."""
    return chain.web3.geth.txpool.content()["pending"][wallet.address.lower()][str(nonce)]["hash"]


async def test_a_transaction_is_on_record_before_it_is_sent_and_until_it_is_mined(
    wallet, store, paused_mining
):
    tx_hash = await send(wallet)
    assert [tx.hash for tx in await store.unmined(wallet.address)] == [tx_hash]
    paused_mining()
    receipt = await wallet.wait(tx_hash, PATIENCE_S)
    assert (receipt.transaction, receipt.succeeded) == (tx_hash, True)
    assert (store.open, store.closed) == ({}, {0: tx_hash})


async def test_twenty_tasks_use_twenty_consecutive_nonces(chain, wallet):
    hashes = await asyncio.gather(*(send(wallet) for _ in range(20)))
    assert all(await asyncio.gather(*(is_mined(wallet, tx_hash) for tx_hash in hashes)))
    used = sorted(chain.web3.eth.get_transaction(tx_hash)["nonce"] for tx_hash in hashes)
    assert used == list(range(20))


@pytest.mark.parametrize("broken", ["lost", "taken"])
async def test_a_broadcast_without_an_answer_is_made_again_and_leaves_no_gap(
    chain, wallet, rpc, broken
):
    rpc.broken = broken
    hashes = [await send(wallet), await send(wallet)]
    assert [await is_mined(wallet, tx_hash) for tx_hash in hashes] == [True, True]
    assert nonces(chain, wallet) == 2


async def test_after_a_crash_between_record_and_broadcast_the_same_bytes_are_sent(
    chain, start, rpc
):
    first = await start()
    rpc.broken = "lost"
    tx_hash = await send(first)
    await first.aclose()
    assert nonces(chain, first) == 0
    second = await start()
    assert await is_mined(second, tx_hash)
    assert await is_mined(second, await send(second))


async def test_after_a_crash_while_it_was_mined_the_receipt_is_found(start, store, chain):
    first = await start()
    tx_hash = await send(first)
    await first.aclose()
    second = await start()
    assert await is_mined(second, tx_hash)
    assert store.open == {}


async def test_a_transaction_is_sent_once_although_its_caller_left(chain, wallet):
    task = asyncio.create_task(send(wallet))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await is_mined(wallet, await send(wallet))
    assert nonces(chain, wallet) == 2


async def test_two_wallets_with_one_key_by_mistake_both_go_on(chain, start):
    first, second = await start(Store()), await start(Store())
    for _ in range(5):
        hashes = await asyncio.gather(*(send(w) for w in (first, second, first, second)))
        await asyncio.gather(
            *((first, second)[i % 2].wait(tx_hash, 5) for i, tx_hash in enumerate(hashes))
        )
    assert await is_mined(first, await send(first))
    assert await is_mined(second, await send(second))


async def test_a_nonce_lost_to_another_ends_the_waiting(start, chain, paused_mining):
    first, second = await start(Store()), await start(Store(), replace_after_s=0)
    lost = await send(first)
    second._next_nonce, second._in_step = 0, True
    await second._look()
    fees = second._market.raised(second._market).raised(second._market)
    winner = await second._launch(0, second.address, "0x", GAS, fees)
    paused_mining()
    assert await is_mined(second, winner.hash)
    assert await first.wait(lost, PATIENCE_S) is None
    assert first._store.closed == {0: None}


async def test_fees_are_those_of_eip_1559(chain, wallet):
    transaction = chain.web3.eth.get_transaction(await send(wallet))
    assert transaction["type"] == 2
    assert transaction["maxFeePerGas"] > transaction["maxPriorityFeePerGas"] > 0


async def test_a_stuck_transaction_is_replaced_and_found_under_its_first_hash(
    chain, start, paused_mining
):
    wallet = await start(replace_after_s=0.3)
    first = await send(wallet)
    fee = chain.web3.eth.get_transaction(first)["maxFeePerGas"]
    while pooled(chain, wallet, 0) == first:  # noqa: ASYNC110  # anvil has nothing to wait for
        await asyncio.sleep(0.01)
    paused_mining()
    receipt = await wallet.wait(first, PATIENCE_S)
    assert receipt.transaction != first
    assert await wallet.wait(first, PATIENCE_S) == receipt
    assert chain.web3.eth.get_transaction(receipt.transaction)["maxFeePerGas"] >= fee * 9 // 8


async def test_after_a_rise_of_the_base_fee_dropped_transactions_are_sent_again(
    chain, start, paused_mining, set_base_fee
):
    wallet = await start(replace_after_s=0.3)
    hashes = [await send(wallet) for _ in range(5)]
    set_base_fee(SPIKE)
    paused_mining()
    assert nonces(chain, wallet) == 0
    chain.web3.provider.make_request("evm_setAutomine", [True])
    assert all([await is_mined(wallet, tx_hash) for tx_hash in hashes])


async def test_fees_that_lag_behind_the_chains_are_raised_before_sending(wallet, set_base_fee):
    assert await is_mined(wallet, await send(wallet))
    set_base_fee(SPIKE)
    assert await is_mined(wallet, await send(wallet))


async def test_without_gas_nothing_is_sent_and_the_nonce_is_not_lost(chain, rpc, store):
    key = Account.create()
    wallet = HotWallet(private_key(key), rpc, NETWORK, store)
    with pytest.raises(PaymentServiceError, match=f"{wallet.address} holds too little"):
        await send(wallet)
    assert store.open == {}
    control(chain.web3, "setBalance", wallet.address, hex(10**18))
    assert await is_mined(wallet, await send(wallet))
    await wallet.aclose()


async def test_a_refused_transaction_leaves_no_gap(chain, wallet):
    with pytest.raises(PaymentServiceError):
        await wallet.send(wallet.address, "0x", 1_000)
    assert await is_mined(wallet, await send(wallet))


async def test_a_gap_left_by_a_reorganisation_is_filled(chain, start):
    wallet = await start(replace_after_s=0.3)
    for _ in range(3):
        assert await is_mined(wallet, await send(wallet))
    control(chain.web3, "rollback", 3)
    assert nonces(chain, wallet) == 0
    assert await is_mined(wallet, await send(wallet))
    assert nonces(chain, wallet) == 4


async def test_what_cannot_be_recorded_is_not_sent(chain, start):
    class Unavailable(Store):
        async def record(self, tx):
            raise LedgerUnavailable("no ledger")

    wallet = await start(Unavailable())
    with pytest.raises(PaymentServiceError):
        await send(wallet)
    assert nonces(chain, wallet) == 0


async def test_of_closed_transactions_only_the_latest_hashes_are_remembered(wallet, monkeypatch):
    monkeypatch.setattr(wallet_module, "REMEMBERED", 2)
    hashes = [await send(wallet) for _ in range(4)]
    assert all([await is_mined(wallet, tx_hash) for tx_hash in hashes])
    assert (wallet._open, wallet._by_hash) == ({}, {})
    assert list(wallet._closed.items()) == [(tx_hash, tx_hash) for tx_hash in hashes[-2:]]
    assert all([await is_mined(wallet, tx_hash) for tx_hash in hashes])


async def test_waiting_ends_and_the_transaction_can_still_be_mined(wallet, paused_mining):
    tx_hash = await send(wallet)
    assert await wallet.wait(tx_hash, 0.1) is None
    paused_mining()
    assert await is_mined(wallet, tx_hash)


async def test_the_gas_left_is_counted_in_settlements(chain, wallet):
    full = await wallet.gas_left()
    control(chain.web3, "setBalance", wallet.address, hex(full.balance // 2))
    half = await wallet.gas_left()
    assert 0 < half.settlements <= full.settlements // 2 + 1
