"""Larger models that answers are bought from."""
