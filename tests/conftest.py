"""What every test runs under: the CPU, quiet libraries, checked signatures."""

import os
import subprocess

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype

# Before the first import of jax, and inherited by the processes that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # no test leans on the last run
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

# Every signature of the package is checked, its array shapes and dtypes included.
# An int may stand for a float, as in every static type checker.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
jaxtyping.install_import_hook("vireid_jax", f"{__name__}.checked")


@pytest.fixture
def small_disk(tmp_path):
    """Mount disks of so many megabytes; `small_disk(1.5)` returns the path of one."""
    disks = []

    def mount(megabytes):
        disk = tmp_path / f"disk{len(disks)}"
        disk.mkdir()
        size = f"size={int(megabytes * 1024)}k"
        command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip(f"no file system can be mounted: {done.stderr.strip()}")
        disks.append(disk)
        return disk

    yield mount
    for disk in disks:
        # Lazily: what a killed process still holds open does not keep it.
        subprocess.run(["umount", "-l", str(disk)], check=True)
