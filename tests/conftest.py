"""What every test runs under: the CPU, quiet libraries, checked signatures."""

import os

import jaxtyping
from beartype import BeartypeConf, beartype

# Before the first import of jax, and inherited by the processes that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # no test leans on the last run
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

# Every signature of the package is checked, its array shapes and dtypes included.
# An int may stand for a float, as in every static type checker.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
jaxtyping.install_import_hook("vireid_jax", f"{__name__}.checked")
