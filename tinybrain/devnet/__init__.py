"""The local world: a chain with Circle's real USDC, a facilitator, and a paid larger model."""
