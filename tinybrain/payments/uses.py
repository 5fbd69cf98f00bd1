"""What the chain says became of the authorization of a payment or purchase."""

from typing import Any

from sqlalchemy import Row

from tinybrain.payments.chain import AuthorizationUse, BlockTag, Chain

LOOK_BACK_S = 600
"""How long before its row an authorization's use is looked for: a chain's clock may be behind."""


async def use_of(
    chain: Chain, row: Row[Any], *, begun_ms: int, block_tag: BlockTag = "latest"
) -> AuthorizationUse:
    """Look up the authorization in a row that was begun at `begun_ms`, up to a block.

    Raises:
        PaymentServiceError: The node could not be asked, or does not have that block.
    """
    return await chain.authorization_use(
        row.payer,
        row.nonce,
        pay_to=row.pay_to,
        amount=row.amount,
        since=begun_ms // 1000 - LOOK_BACK_S,
        until=row.valid_before,
        block_tag=block_tag,
    )
