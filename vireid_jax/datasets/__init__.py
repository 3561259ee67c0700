"""TFDS builders, one package each; in a clone they live in `datasets/` at its root."""

from pathlib import Path

_CLONE = Path(__file__).resolve().parents[2]
if (_CLONE / "pyproject.toml").is_file() and (_CLONE / "datasets").is_dir():
    # An installed wheel holds the builders right here; a clone keeps them one level up.
    __path__.append(str(_CLONE / "datasets"))
