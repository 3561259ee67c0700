"""What made a network: stored beside its weights, and in the files made with it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunInfo:
    """Describe the training behind a network.

    `data` is the title and the fingerprint of the training set, `thresholds` what
    `embed.thresholds.find_thresholds` returned, `metrics` those of the validation.
    """

    config: dict[str, Any]  # as it was stored: `config.with_defaults` completes it
    num_classes: int
    step: int = 0
    epoch: float = 0.0
    data: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "RunInfo":
        """Take the known keys of a JSON object; others, of training alone, are left."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: document[name] for name in names if name in document})

    def to_json(self) -> dict[str, Any]:
        """Return a dict for JSON, that `from_json` reads."""
        return dataclasses.asdict(self)
