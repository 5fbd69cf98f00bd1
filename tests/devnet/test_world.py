"""The devnet as a whole."""

import pytest

from tinybrain.config import Settings
from tinybrain.devnet.processes import ProcessFailed, claim_port, listens
from tinybrain.devnet.world import Devnet, Ports
from tinybrain.errors import ConfigError

pytestmark = [pytest.mark.chain, pytest.mark.timeout(180)]  # it starts whole devnets


def test_its_environment_is_all_that_an_application_needs(devnet, monkeypatch):
    for name, value in devnet.environment().items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None).require_serving()
    assert settings.rpc == devnet.rpc_url
    assert settings.pay_to == devnet.wallets.treasury.address
    assert settings.upstream_pay_to == devnet.wallets.provider.address


def test_a_second_start_keeps_the_money_and_a_dead_process_is_named(devnet_tools, tmp_path):
    def world():
        return Devnet(tmp_path, ports=Ports(0, 0, 0), tools_folder=devnet_tools.folder)

    first = world().start()
    first.stop()
    second = world().start()
    second.require_alive()
    second.processes[1].stop()
    with pytest.raises(ProcessFailed, match="facilitator ended"):
        second.require_alive()
    second.stop()
    assert first.wallets.caller.address == second.wallets.caller.address
    assert not listens(int(second.rpc_url.rpartition(":")[2]))


def test_a_taken_port_is_named_before_anything_starts(devnet_tools, tmp_path, devnet):
    port = int(devnet.rpc_url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=rf"Port {port}.*--chain-port"):
        Devnet(tmp_path, ports=Ports(chain=port), tools_folder=devnet_tools.folder)
    assert claim_port(0, what="a test", option="") != port
