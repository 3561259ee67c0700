"""What a run ran on: versions, devices, processor, commit."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Describe the machine: versions, devices, and the commit where git knows it."""
    import jax  # not above: processes without jax count their cores

    packages = ("vireid-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    packages += ("grain", "numpy", "opencv-python-headless", "tensorflow-datasets")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": processor(),
        "devices": [d.device_kind for d in jax.devices()],
        "processes": jax.process_count(),
        "commit": commit(),
        "packages": {name: version(name) for name in packages},
    }


def one_line(facts: dict[str, Any]) -> str:
    """Format an environment as one line: versions, commit, devices."""
    packages = (f"{name} {number}" for name, number in facts["packages"].items())
    kinds = facts["devices"]
    devices = (f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    return (
        f"commit {facts['commit']}, Python {facts['python']}, {', '.join(packages)};"
        f" {', '.join(devices)}, {facts['processor']}; processes: {facts['processes']}"
    )


def differing(then: dict[str, Any], now: dict[str, Any]) -> str:
    """List what differs between two environments; "" if nothing does."""
    from flax.traverse_util import flatten_dict

    then, now = flatten_dict(then, sep="."), flatten_dict(now, sep=".")
    return ", ".join(
        f"{key.removeprefix('packages.')} changed from {then.get(key)} to {now[key]}"
        for key in now
        if then.get(key) != now[key]
    )


def processor() -> str:
    """Name the processor as Linux does, else as Python does."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def cores() -> int:
    """Count the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # macOS has none
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def version(package: str) -> str | None:
    """Return a package's installed version; None where it runs from a plain clone."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return the commit of the clone that runs, with a + if it was changed."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+"]
    here, hidden = Path(__file__).parent, subprocess.DEVNULL
    try:
        return subprocess.check_output(command, cwd=here, stderr=hidden, text=True)[:-1]
    except (OSError, subprocess.CalledProcessError):
        return None
