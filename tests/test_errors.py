"""Errors as the outside sees them."""

import pickle
import re
from importlib import import_module
from pathlib import Path

import pytest

from tinybrain import errors
from tinybrain.errors import BudgetExceeded, InvalidRequest, UpstreamError
from tinybrain.payments.rpc import RpcRefused

CHECKOUT = Path(errors.__file__).parents[1]
GENERAL = [kind for kind in vars(errors).values() if isinstance(kind, type)]
DERIVED = re.compile(
    rf"^class (\w+)\((?:{'|'.join(kind.__name__ for kind in GENERAL)})\):", re.MULTILINE
)
IN_WORDS_OF_ITS_OWN = {RpcRefused: RpcRefused(3, "execution reverted", "0x08")}


def every_error():
    """Those of `errors`, and those that other modules derive from them."""
    found = [(errors.__name__, kind.__name__) for kind in GENERAL]
    for path in (*CHECKOUT.glob("tinybrain/**/*.py"), *CHECKOUT.glob("deployments/**/*.py")):
        module = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
        found += [(module, name) for name in DERIVED.findall(path.read_text())]
    return sorted(set(found))


def test_an_error_becomes_openais_error_object():
    body = InvalidRequest("Too long.", param="messages", code="message_too_long").body()
    assert body == {
        "error": {
            "message": "Too long.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "message_too_long",
        }
    }


def test_errors_of_other_modules_are_found():
    assert (RpcRefused.__module__, RpcRefused.__name__) in every_error()


@pytest.mark.parametrize(("module", "name"), every_error())
def test_every_error_survives_the_way_between_processes(module, name):
    kind = getattr(import_module(module), name)
    error = IN_WORDS_OF_ITS_OWN.get(kind) or kind("why", code="c", param="p")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))


def test_a_spending_cap_is_an_upstream_failure_so_that_tinychat_may_answer():
    assert issubclass(BudgetExceeded, UpstreamError)
