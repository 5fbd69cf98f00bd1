"""The devnet's wallets: random, private, funded once."""

import stat

import pytest

from tinybrain.devnet.wallets import DevnetWallets
from tinybrain.errors import ConfigError


def test_keys_are_random_and_only_their_owner_can_read_them(tmp_path):
    first, second = (DevnetWallets.load_or_create(tmp_path / name) for name in ("a", "b"))
    assert first.caller.key != second.caller.key
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_they_stay_the_same(tmp_path):
    keys = [DevnetWallets.load_or_create(tmp_path / "keys").gas.key for _ in range(2)]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("content", ["", "[]", '{"caller": "0x1"}'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "keys").write_text(content)
    with pytest.raises(ConfigError, match="is damaged"):
        DevnetWallets.load_or_create(tmp_path / "keys")


@pytest.mark.chain
def test_money_is_given_once(chain):
    wallets = chain.wallets
    balances = [chain.balance(wallets.caller.address), chain.balance(wallets.treasury.address)]
    assert balances == [100_000_000, 10_000_000]
    wallets.fund(chain.web3, chain.token)
    assert chain.balance(wallets.caller.address) == 100_000_000
    assert chain.web3.eth.get_balance(wallets.gas.address) == 10**18
