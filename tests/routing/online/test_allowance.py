"""Where no cost is told, audits are counted."""

import pytest

from tinybrain.errors import BudgetExceeded
from tinybrain.routing.online.allowance import DAY_S, Allowance


def test_each_is_given_back_after_a_day():
    now = 0.0
    allowance = Allowance(2, clock=lambda: now)
    allowance.take()
    now = 10.0
    allowance.take()
    now = DAY_S - 1
    with pytest.raises(BudgetExceeded, match="2 audits in 24 hours"):
        allowance.take()
    now = DAY_S
    allowance.take()
    with pytest.raises(BudgetExceeded):
        allowance.take()


def test_without_a_number_any_are_allowed():
    for _ in range(100):
        Allowance(None).take()
