"""TinyBrain: sells answers for a cent over x402, and buys the ones its own model does not know."""

__version__ = "0.1.0"
