"""Recipes: config files by name, as `demo`, `regdb:trial=3`, `ablations/sharing`."""

import difflib
import inspect
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

from vireid_jax.run.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# A wheel holds them in vireid_jax/configs/, a clone in configs/ at its root; this makes
# `vireid_jax.configs.demo` a module in both.
_PACKAGE = Path(__file__).with_suffix("")
__path__ = [str(_PACKAGE if _PACKAGE.is_dir() else _PACKAGE.parents[1] / "configs")]


def list_configs() -> list[str]:
    """Return the names of the configs that come with the package."""
    folder = Path(__path__[0])
    paths = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py"))
    return sorted(path.as_posix() for path in paths if not path.name.startswith("_"))


def find_config(text: str, flag: str = "--config") -> str:
    """Return PATH.py[:ARGUMENT] for NAME[:ARGUMENT] or PATH.py[:ARGUMENT].

    Raise UserError, with the valid names, if there is no such file.
    """
    name, colon, argument = text.partition(":")
    names = list_configs()
    path = Path(__path__[0], f"{name}.py") if name in names else Path(name)
    if not path.is_file():
        by_stem = {Path(known).name: known for known in names}
        close = difflib.get_close_matches(path.stem, by_stem, 1)
        meant = f"did you mean {by_stem[close[0]]}? " if close else ""
        raise UserError(
            f"{flag} {text}: there is no config {name}; {meant}valid values: a path,"
            f" FILE.py, or {', '.join(names)}"
        )
    return f"{path}{colon}{argument}"


def get_config(text: str) -> "ConfigDict":
    """Return the config that NAME[:ARGUMENT] or PATH.py[:ARGUMENT] describes.

    Raise UserError if there is no such config, or for an argument that it cannot take.
    """
    path, _, argument = find_config(text).partition(":")
    create = runpy.run_path(path)["get_config"]
    if argument and not inspect.signature(create).parameters:
        raise UserError(f"{text}: this config has no arguments; remove :{argument}")
    return create(argument) if argument else create()
