"""A paying HTTP client: the stock x402 SDK with a wallet's key and a cap, for the CLI."""

from decimal import Decimal

import httpx
from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.schemas import NoMatchingRequirementsError

from tinybrain.errors import PaymentRequired
from tinybrain.usdc import ATOMIC_PER_DOLLAR, Usdc, format_usdc


class _Transport(httpx.AsyncBaseTransport):
    """The SDK's transport; its refusals become errors that say what to do."""

    def __init__(self, inner: x402AsyncTransport, cap: Usdc) -> None:
        self._inner = inner
        self._cap = cap

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._inner.handle_async_request(request)
        except Exception as error:
            if isinstance(error.__cause__, NoMatchingRequirementsError):
                raise PaymentRequired(
                    f"The service asks for more than {format_usdc(self._cap)} or for another "
                    "coin than USDC. Nothing was paid; raise --max-price if that is right."
                ) from error
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()


def paying_client(private_key: str, *, max_price: Usdc, timeout_s: float) -> httpx.AsyncClient:
    """An httpx client that answers a 402 by paying at most `max_price` of USDC for it.

    Raises:
        ValueError: The key is none.
    """
    account = Account.from_key(private_key)
    client = x402Client()
    register_exact_evm_client(client, EthAccountSigner(account))
    dollars = Decimal(max_price) / ATOMIC_PER_DOLLAR  # the SDK reads this cap as dollars
    client.set_spend_controls({"max_amount_per_payment": str(dollars)})
    transport = _Transport(x402AsyncTransport(client), max_price)
    return httpx.AsyncClient(transport=transport, timeout=timeout_s)


def address_of(private_key: str) -> str:
    """The address of a key, with checksum."""
    return str(Account.from_key(private_key).address)
