"""Run a command by its name: `vireid NAME ...` or `python -m vireid_jax NAME ...`."""

import importlib
import sys

from vireid_jax.run.command import DOCS
from vireid_jax.run.errors import UserError, did_you_mean, one_line_errors

COMMANDS = {
    "train": ("main", "train a network and evaluate it"),
    "evaluate": ("evaluate.__main__", "score a run or features, or compare runs"),
    "prepare": ("prepare.__main__", "prepare or check a data set"),
    "extract": ("extract", "embed a folder of images into a file of features"),
    "rank": ("rank", "rank a gallery of images for a query"),
    "compare": ("compare", "decide whether two images show one person"),
    "export": ("export.__main__", "write a network for other programs"),
    "report": ("report.__main__", "show a run, or two, in one HTML file"),
    "ablate": ("ablate.__main__", "train every row of a study with several seeds"),
    "convert": ("convert", "convert weights into a .safetensors file"),
    "models": ("models.__main__", "list the networks, or describe one"),
    "synthetic": ("synthetic.__main__", "draw synthetic people"),
}
"""By name: the module below `vireid_jax` whose `main` it is, and what it does."""


def main() -> None:
    """Run the command that the first argument names."""
    prog = "python -m vireid_jax" if sys.argv[0].endswith("__main__.py") else "vireid"
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        lines = (f"  {name:10} {what}\n" for name, (_, what) in COMMANDS.items())
        sys.stdout.write(
            f"usage: {prog} COMMAND ...\n\nVisible-infrared person re-identification."
            f"\n\ncommands:\n{''.join(lines)}\nFor one of them: {prog} COMMAND --help\n"
            f"\nexamples:\n  {prog} train --config demo --workdir runs/demo\n"
            f"  {prog} evaluate --workdir runs/demo\n\n{DOCS}/index.md\n"
        )
        return
    with one_line_errors():
        if name not in COMMANDS:
            meant = did_you_mean(name, COMMANDS)
            raise UserError(
                f"{name!r} is not a command; {meant}valid values: {', '.join(COMMANDS)}"
            )
    sys.argv = [f"{prog} {name}", *sys.argv[2:]]
    importlib.import_module(f"vireid_jax.{COMMANDS[name][0]}").main()


if __name__ == "__main__":
    main()
