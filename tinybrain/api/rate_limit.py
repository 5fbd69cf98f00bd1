"""A limit on refused payments by client address: verifying each costs work, here and on a chain.

Counts in this process only, and only what it is told; knows no HTTP.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from tinybrain.errors import TooManyRefusals

MAX_ADDRESSES = 10_000
IPV6_SITE_BITS = 64  # one caller has at least this many addresses to choose from


class _Bucket(NamedTuple):
    tokens: float
    filled: float  # when, by the clock


class Refusals:
    """A token bucket for each address: as many refusals as its limit, then so many a minute."""

    def __init__(
        self, limit_per_minute: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit_per_minute
        self._per_second = limit_per_minute / 60
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def check(self, address: str) -> None:
        """Let an address try a payment.

        Raises:
            TooManyRefusals: Too many of its payments were refused; says for how long.
        """
        missing = 1 - self._tokens(_site_of(address))
        if missing > 0:
            wait_s = math.ceil(missing / self._per_second)
            raise TooManyRefusals(
                f"Too many payments from this address were refused. Wait {wait_s} seconds, and "
                "find out from the earlier answers why they were.",
                retry_after_s=wait_s,
            )

    def note(self, address: str) -> None:
        """Count a refused payment of an address."""
        site = _site_of(address)
        tokens = max(0.0, self._tokens(site) - 1)
        self._buckets[site] = _Bucket(tokens, self._clock())
        self._buckets.move_to_end(site)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)

    def _tokens(self, site: str) -> float:
        bucket = self._buckets.get(site)
        if bucket is None:
            return self._limit
        refilled = (self._clock() - bucket.filled) * self._per_second
        return min(self._limit, bucket.tokens + refilled)


def _site_of(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> IPV6_SITE_BITS:x}::"
