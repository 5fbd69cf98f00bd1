"""What is told of the small model: its checkpoint, its card, what its calibration is worth."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tinybrain.config import Settings
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.assembly import checkpoint_of, open_router

CARD_FILE = "MODEL_CARD.md"
MAX_CARD_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The small model's. None is what is not known here.

    `checkpoint` is its hash, `card` Markdown, `calibration` the router's report.
    """

    checkpoint: str | None = None
    parameters: int | None = None
    card: str | None = None
    calibration: dict[str, Any] | None = None

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Read what lies beside the checkpoint; a machine without it knows what its router says.

        Raises:
            ConfigError: The router that is set is missing, or it cannot be read.
        """
        router = open_router(settings)
        report = router.report if router else None
        calibration = report.model_dump(mode="json") if report else None
        try:
            files = checkpoint_of(settings)
        except ConfigError:
            return cls(checkpoint=router.checkpoint if router else None, calibration=calibration)
        return cls(
            checkpoint=router.checkpoint if router else files.digest(),
            parameters=files.parameters(),
            card=_card(files.weights.with_name(CARD_FILE)),
            calibration=calibration,
        )

    def fields(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def _card(path: Path) -> str | None:
    if not path.is_file() or path.stat().st_size > MAX_CARD_BYTES:
        return None
    return path.read_text(encoding="utf-8", errors="replace")
