"""How many refused payments an address may send."""

import pytest

from tinybrain.api import rate_limit
from tinybrain.api.rate_limit import Refusals
from tinybrain.errors import TooManyRefusals


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def refusals(clock):
    """Six a minute: one every ten seconds."""
    return Refusals(6, clock=clock)


def refuse(refusals, address, times=1):
    for _ in range(times):
        refusals.note(address)


def blocked(refusals, address):
    try:
        refusals.check(address)
    except TooManyRefusals:
        return True
    return False


def test_an_address_may_be_refused_up_to_its_limit(refusals):
    refuse(refusals, "192.0.2.1", 5)
    assert not blocked(refusals, "192.0.2.1")
    refuse(refusals, "192.0.2.1")
    assert blocked(refusals, "192.0.2.1")


def test_payments_that_are_not_refused_are_not_counted(refusals):
    for _ in range(100):
        refusals.check("192.0.2.1")


def test_the_error_says_how_long_to_wait_and_that_is_enough(refusals, clock):
    refuse(refusals, "192.0.2.1", 6)
    clock.now += 3.5
    with pytest.raises(TooManyRefusals, match="Wait 7 seconds"):
        refusals.check("192.0.2.1")
    clock.now += 7
    refusals.check("192.0.2.1")


def test_a_flood_that_was_under_way_does_not_lengthen_the_wait(refusals, clock):
    refuse(refusals, "192.0.2.1", 600)
    clock.now += 10
    assert not blocked(refusals, "192.0.2.1")


def test_a_long_pause_gives_back_no_more_than_the_limit(refusals, clock):
    refuse(refusals, "192.0.2.1", 6)
    clock.now += 86_400
    refuse(refusals, "192.0.2.1", 6)
    assert blocked(refusals, "192.0.2.1")


def test_one_address_does_not_pay_for_another(refusals):
    refuse(refusals, "192.0.2.1", 6)
    assert not blocked(refusals, "192.0.2.2")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2001:db8::1", "2001:db8::ffff:1"),  # one network of IPv6 is one caller
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unix socket", "unix socket"),
    ],
)
def test_addresses_of_one_caller_count_together(refusals, first, second):
    refuse(refusals, first, 6)
    assert blocked(refusals, second)


def test_networks_of_ipv6_count_apart(refusals):
    refuse(refusals, "2001:db8::1", 6)
    assert not blocked(refusals, "2001:db8:0:1::1")


def test_memory_is_bounded_and_the_oldest_address_is_forgotten(refusals, monkeypatch):
    monkeypatch.setattr(rate_limit, "MAX_ADDRESSES", 2)
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        refuse(refusals, address, 6)
    assert [blocked(refusals, f"192.0.2.{last}") for last in (1, 2, 3)] == [True, False, True]
    assert len(refusals._buckets) == 2
