"""Errors as the outside sees them."""

import pickle

from tinybrain.errors import BudgetExceeded, InvalidRequest, TinyBrainError, UpstreamError


def every_error():
    pending, found = [TinyBrainError], []
    while pending:
        found.append(pending.pop())
        pending += found[-1].__subclasses__()
    return found


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


def test_every_error_survives_the_way_between_processes():
    for kind in every_error():
        error = kind("why", code="c", param="p")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.message, again.code, again.param) == (kind, "why", "c", "p")


def test_a_spending_cap_is_an_upstream_failure_so_that_tinychat_may_answer():
    assert issubclass(BudgetExceeded, UpstreamError)
