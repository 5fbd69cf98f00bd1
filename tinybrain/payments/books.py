"""The ledger's books, for its owner: rows by page, and the trial balance. Reads only.

Rows are given in named columns: never signatures, signed payloads or hashes of tokens.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    RowMapping,
    Select,
    Table,
    false,
    func,
    make_url,
    or_,
    select,
    tuple_,
)
from sqlalchemy.exc import ArgumentError

from tinybrain.errors import ConfigError, InvalidRequest
from tinybrain.payments import journal_accounts
