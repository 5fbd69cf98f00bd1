"""A facilitator of our own on the session's chain, and a hand on what that mines."""

import asyncio

import pytest

from tests.payments.facilitators.own.paying import own
from tinybrain.devnet.chain import control


@pytest.fixture
async def facilitator(chain):
    facilitator = own(chain)
    yield facilitator
    await facilitator.aclose()


class Mining:
    """Stops the chain from mining, and mines one block."""

    def __init__(self, web3):
        self._web3 = web3

    def pause(self):
        self._web3.provider.make_request("evm_setAutomine", [False])

    def mine(self):
        control(self._web3, "mine", "0x1")

    def resume(self):
        self._web3.provider.make_request("evm_setAutomine", [True])
        self.mine()

    async def next_call(self):
        """The data of the first transaction that waits."""
        pool = self._web3.geth.txpool
        async with asyncio.timeout(30):
            while not (waiting := pool.content()["pending"]):  # noqa: ASYNC110  # anvil tells nobody
                await asyncio.sleep(0.01)
        (by_nonce,) = waiting.values()
        return next(iter(by_nonce.values()))["input"]


@pytest.fixture
def mining(chain):
    mining = Mining(chain.web3)
    yield mining
    mining.resume()
