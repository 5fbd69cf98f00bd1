"""Ctrl-C and a second start; named to run last, on the product the other tests used."""

import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.serve, pytest.mark.chain, pytest.mark.timeout(700)]


def environment_names(pid, home):
    try:
        return str(home).encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def processes_of_home(home):
    """Every process that was started with this devnet's settings, whoever its parent is."""
    return [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if int(folder.name) != os.getpid() and environment_names(folder.name, home)
    ]


def test_ctrl_c_leaves_no_process_and_a_second_start_finds_everything(product):
    answer_id = product.ask("Hello, who are you?")["receipt"]["receipt"]
    balances, receipt = product.balances(), product.receipt(answer_id)
    assert processes_of_home(product.home)

    assert product.stop() == 0
    assert processes_of_home(product.home) == []

    product.start()
    assert product.balances() == balances
    assert product.receipt(answer_id) == receipt
