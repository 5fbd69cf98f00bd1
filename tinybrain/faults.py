"""What pydantic found wrong with data of others, in words for a message."""

from pydantic import ValidationError


def first_fault(error: ValidationError) -> tuple[str, str]:
    """Where the first fault is ("messages.0.role", or "" for the whole) and what it is."""
    fault = error.errors(include_input=False, include_url=False)[0]
    return ".".join(str(part) for part in fault["loc"]), fault["msg"]
