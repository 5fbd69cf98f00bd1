"""Conversations packed into rows of one length, and the attention that keeps them apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinybrain.engine.attention import attention
from tinybrain.training.tokens import Weighted

OPEN_ROWS = 48
"""Rows that may still be filled at once: more waste less, and take longer."""


@dataclass(frozen=True, slots=True)
class Rows:
    """N rows of T + 1 tokens; all three tensors are [N, T + 1].

    `weights` are those in the loss; `documents` tells which of the row's a token belongs to.
    """

    ids: Tensor
    weights: Tensor
    documents: Tensor

    def __len__(self) -> int:
        """How many rows."""
        return len(self.ids)

    def to(self, device: torch.device) -> "Rows":
        """The same on a device."""
        return Rows(self.ids.to(device), self.weights.to(device), self.documents.to(device))

    def take(self, indices: Tensor) -> "Rows":
        """Some of the rows."""
        return Rows(self.ids[indices], self.weights[indices], self.documents[indices])


class _Row:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.weights: list[float] = []
        self.documents: list[int] = []

    def add(self, document: Sequence[Weighted]) -> None:
        number = self.documents[-1] + 1 if self.documents else 0
        for token, weight in document:
            self.ids.append(token)
            self.weights.append(weight)
            self.documents.append(number)


def pack(documents: Iterable[Sequence[Weighted]], *, length: int, padding: int) -> Rows:
    """Pack documents into rows of `length` + 1 tokens, in about the order they come in.

    Those that do not fit a row are left out. What is left of a row is filled with the `padding`
    token, of no weight.
    """
    closed: list[_Row] = []
    rows: list[_Row] = []
    for document in documents:
        if len(document) > length + 1:
            continue
        fitting = (row for row in rows if len(row.ids) + len(document) <= length + 1)
        row = next(fitting, None)
        if row is None:
            if len(rows) == OPEN_ROWS:
                rows.sort(key=lambda row: len(row.ids))
                closed.append(rows.pop())
            row = _Row()
            rows.append(row)
        row.add(document)
    closed += rows
    for row in closed:
        row.add([(padding, 0.0)] * (length + 1 - len(row.ids)))
    return Rows(
        torch.tensor([row.ids for row in closed], dtype=torch.int32),
        torch.tensor([row.weights for row in closed]),
        torch.tensor([row.documents for row in closed], dtype=torch.int16),
    )


class PackedRows:
    """The engine's `Context` of rows [B, T] that hold several documents: none sees another."""

    def __init__(self, ids: Tensor, documents: Tensor) -> None:
        places = torch.arange(ids.shape[1], device=ids.device)
        same = documents[:, None, :] == documents[:, :, None]
        self._mask = (same & (places[:, None] >= places)).unsqueeze(1)
        starts = documents.diff(prepend=documents[:, :1] - 1, dim=1) != 0
        self.positions = places - torch.where(starts, places, 0).cummax(dim=1).values
        self._ids = ids

    @property
    def before(self) -> Tensor:
        """See `Context`."""
        return self._ids.roll(1, dims=1)

    def attend(
        self,
        layer: int,  # noqa: ARG002  # the same for each
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        window: int | None = None,  # noqa: ARG002  # V1 has none
    ) -> Tensor:
        """See `Context`; computes in the type of v, which autocast has made a short one."""
        k, v = k.to(v.dtype).transpose(1, 2), v.transpose(1, 2)
        return attention(q.to(v.dtype), k, v, self._mask)
