"""Python in a process of its own."""

import os
import subprocess
import sys


def run_python(*arguments, env=None, **options):
    """Run Python with arguments, and `env` added to the environment; capture its text.

    A process that hangs fails after ten minutes.
    """
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
        **options,
    )
