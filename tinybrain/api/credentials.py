"""Reads from a request's headers what it pays with."""

from starlette.requests import Request

from tinybrain.api.admission import TAB_PREFIX, Credentials
from tinybrain.errors import InvalidRequest
from tinybrain.payments.wire import read_payment

MAX_TOKEN_CHARS = 200
MAX_IDEMPOTENCY_KEY_CHARS = 255


def read_credentials(request: Request, *, behind_proxy: bool) -> Credentials:
    """A payment (x402 v1 or v2), a tab's token, or the operator's API key.

    A Bearer token that is no tab's is ignored: OpenAI's clients always send one. With
    `behind_proxy` the caller's address is the one that the proxy in front of us saw.

    Raises:
        InvalidRequest, RequestTooLarge: A header cannot be read.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= MAX_IDEMPOTENCY_KEY_CHARS:
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY_CHARS} characters.",
            param="Idempotency-Key",
        )
    return Credentials(
        payment=read_payment(request.headers.getlist),
        tab=read_tab_token(request),
        api_key=request.headers.get("X-API-Key"),
        idempotency_key=key,
        # OpenAI's SDKs repeat a lost request by themselves, without an idempotency key.
        retried=request.headers.get("X-Stainless-Retry-Count", "0") != "0",
        address=_address(request, behind_proxy=behind_proxy),
    )


def read_tab_token(request: Request) -> str | None:
    """The token of X-SESSION-TOKEN, or of Authorization: Bearer if it is a tab's."""
    token = request.headers.get("X-SESSION-TOKEN")
    if token is None:
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and bearer.strip().startswith(TAB_PREFIX):
            token = bearer.strip()
    if token is not None and len(token) > MAX_TOKEN_CHARS:
        raise InvalidRequest("The tab's token is too long.", param="X-SESSION-TOKEN")
    return token


def _address(request: Request, *, behind_proxy: bool) -> str:
    if behind_proxy:
        # The proxy appends what it saw; what stands before it the caller may have made up.
        seen = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        if seen:
            return seen
    return request.client.host if request.client else ""
