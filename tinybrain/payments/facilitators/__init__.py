"""Facilitators: who verifies a payment and who puts it on the chain."""

from tinybrain.payments.facilitators.base import Facilitator, Order, Settled
from tinybrain.payments.facilitators.build import (
    build_gas_wallet,
    build_settler,
    build_verifier,
)
from tinybrain.payments.facilitators.failover import FailoverFacilitator
from tinybrain.payments.facilitators.http import HttpFacilitator
from tinybrain.payments.facilitators.own import OwnFacilitator

__all__ = [
    "Facilitator",
    "FailoverFacilitator",
    "HttpFacilitator",
    "Order",
    "OwnFacilitator",
    "Settled",
    "build_gas_wallet",
    "build_settler",
    "build_verifier",
]
