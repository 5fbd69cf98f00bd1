"""Counts the refused payments of an address on the routes that sell no answers."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from tinybrain.api.credentials import read_credentials
from tinybrain.api.gateway import Gateway
from tinybrain.errors import PaymentRequired


@contextmanager
def count_refused(request: Request) -> Iterator[None]:
    """Let a request try a payment, and count it if it is refused.

    Raises:
        TooManyRefusals: Too many payments from its address were refused.
    """
    gateway: Gateway = request.app.state.gateway
    credentials = read_credentials(request, behind_proxy=gateway.settings.behind_proxy)
    gateway.refusals.check(credentials.address)
    try:
        yield
    except PaymentRequired:
        gateway.refusals.note(credentials.address)
        raise
