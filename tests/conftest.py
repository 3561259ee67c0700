"""What every test runs under: the CPU, quiet libraries, checked signatures."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype

# Before the first import of jax, and inherited by the processes that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # no test leans on the last run
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

BUILDERS = Path(__file__).parents[1] / "datasets"

# Every signature of the package is checked, its array shapes and dtypes included.
# An int may stand for a float, as in every static type checker.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
jaxtyping.install_import_hook("vireid_jax", f"{__name__}.checked")


def pytest_configure(config):
    """Register the mark of the tests that `make docs` runs."""
    line = "mistakes(table): its messages are in docs/reliability.md"
    config.addinivalue_line("markers", line)


def pytest_sessionfinish(exitstatus):
    """Write the tables of error messages with WRITE_DOCS=1, unless a test failed."""
    if os.environ.get("WRITE_DOCS") and exitstatus == pytest.ExitCode.OK:
        import refusals

        refusals.write()


@pytest.fixture
def refuses(request, tmp_path):
    """Call an action that must fail with a message of a table in the docs."""
    import refusals

    (table,) = request.node.get_closest_marker("mistakes").args
    return functools.partial(refusals.check, table, tmp_path.parent)


@pytest.fixture
def release(tmp_path):
    """Copy the small tree of a release, to be damaged."""

    def copy(name):
        root = tmp_path / "release" / name
        shutil.copytree(BUILDERS / name / "dummy_data", root)
        (root / "test_nir/cam3").mkdir(parents=True, exist_ok=name == "llcm")
        if name != "llcm":
            shutil.rmtree(root / "test_nir")
        return root

    return copy


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


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """Open a page of a browser for the module's tests."""
    import browser

    if browser.CHROMIUM is None:
        pytest.skip("no chromium here; apt-get install chromium")
    found = browser.Tab(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """Share what XLA compiles among a module's runs; gives its processes' environment.

    The folder is this module's own: no test leans on the last run.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    options = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
    }
    before = {name: getattr(jax.config, name) for name in options}
    jax.tree.map(jax.config.update, list(options), list(options.values()))
    compilation_cache.reset_cache()
    yield {name.upper(): str(value) for name, value in options.items()}
    jax.tree.map(jax.config.update, list(before), list(before.values()))
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def small_network():
    """Put the tiny network of small_run.py in the place of every other."""
    import small_run

    from vireid_jax import models

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "create", small_run.create)
        yield
