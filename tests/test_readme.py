"""The README's Python examples that need no training."""

import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_orbax_alone_reads_a_checkpoint():
    readme = (TESTS.parent / "README.md").read_text()
    (example,) = re.findall(r"```python\n([^`]*orbax[^`]*)```", readme)
    example = example.replace("runs/demo", f"{TESTS}/golden/run_0_1_0")
    example += "import sys\nassert kernel.shape == (7, 7, 3, 16)\n"
    example += "assert 'vireid_jax' not in sys.modules"
    command = [sys.executable, "-W", "ignore", "-c", example]
    subprocess.run(command, check=True, cwd=TESTS)
