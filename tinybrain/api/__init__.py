"""Wire formats and HTTP routes."""
