"""What tests share: the shipped checkpoint; anvil, Circle's USDC, facilitator, seller, all real."""
# ruff: noqa: PLC0415  # tests of other parts should not wait for web3 to be imported

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

CHECKOUT = Path(__file__).parents[1]

# A busy machine is slow; that is no fault of what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_developer():
    """Tests read their own settings only, not the developer's environment or `.env`."""
    import os

    from tinybrain.config import Settings

    names = {n for field in Settings.model_fields.values() for n in field.validation_alias.choices}
    for name in names & os.environ.keys():
        del os.environ[name]
    Settings.model_config["env_file"] = None


@pytest.fixture
def bare_checkpoint(tmp_path):
    """A copy of the shipped checkpoint, alone in its folder: without router and model card."""
    from tinybrain.config import load_settings
    from tinybrain.routing.calibration.assembly import checkpoint_of

    files = checkpoint_of(load_settings())
    for path in (files.weights, files.config, files.tokenizer):
        shutil.copy(path, tmp_path)
    return tmp_path


class LocalChain:
    """A running chain with USDC, funded wallets, and money for more."""

    def __init__(self, tools, folder):
        from tinybrain.devnet.chain import Chain
        from tinybrain.devnet.processes import claim_port
        from tinybrain.devnet.token import place_usdc
        from tinybrain.devnet.wallets import DevnetWallets

        chain = Chain(
            tools.anvil,
            port=claim_port(0, what="a test", option=""),
            state=folder / "chain.json",
            log=folder / "chain.log",
        )
        self.url = chain.url
        self.stop = chain.stop
        self.web3 = chain.wait_until_ready()
        self.token = place_usdc(self.web3, tools)
        self.wallets = DevnetWallets.load_or_create(folder / "wallets.json")
        self.wallets.fund(self.web3, self.token)

    def balance(self, address):
        """Atomic USDC."""
        return self.token.functions.balanceOf(address).call()

    def new_wallet(self, dollars=1):
        """A fresh wallet with one ether and so many dollars."""
        from eth_account import Account

        from tinybrain.devnet.token import give_ether, mint

        wallet = Account.create()
        give_ether(self.web3, wallet.address)
        if dollars:
            mint(self.web3, self.token, wallet.address, dollars * 1_000_000)
        return wallet


@pytest.fixture(scope="session")
def devnet_tools():
    """anvil and Circle's contracts; one folder for all runs, so npm installs once."""
    from tinybrain.devnet.tools import install_tools

    return install_tools(CHECKOUT / ".tinybrain" / "tools")


@pytest.fixture(scope="session")
def start_chain(devnet_tools):
    """Starts a chain that keeps its state in a folder; its user stops it."""
    return lambda folder: LocalChain(devnet_tools, folder)


@pytest.fixture(scope="session")
def chain(start_chain, tmp_path_factory):
    """The session's chain: `url`, `web3`, `token`, `wallets`, `balance()`, `new_wallet()`."""
    chain = start_chain(tmp_path_factory.mktemp("chain"))
    yield chain
    chain.stop()


@pytest.fixture(scope="session")
def devnet(devnet_tools, tmp_path_factory):
    """The session's devnet: a chain of its own, the facilitator and the paid larger model."""
    from tinybrain.devnet.world import Devnet, Ports

    home = tmp_path_factory.mktemp("home")
    devnet = Devnet(home, ports=Ports(0, 0, 0), tools_folder=devnet_tools.folder)
    devnet.start()
    yield devnet
    devnet.stop()
