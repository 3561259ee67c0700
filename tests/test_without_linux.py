"""The demo and its commands where Python has nothing of Linux, as on macOS."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import small_run
from python_process import run_python

ROOT = Path(__file__).parents[1]
# Python runs this at its start. Other packages may import fcntl, which macOS has.
SITECUSTOMIZE = """
import ctypes, os, sys
del os.sched_getaffinity
sys.modules["fcntl"] = None

class CDLL(ctypes.CDLL):
    def __getattr__(self, name):
        if name in ("mallopt", "gnu_get_libc_version"):
            raise AttributeError(name)
        return super().__getattr__(name)

ctypes.CDLL = CDLL
"""
SMALL = [small_run.__file__, "train", f"--config={small_run.__file__}"]
DEMO = [
    *("-m", "vireid_jax", "train", "--config=demo"),
    *("--config.data.options.train_ids=40", "--config.data.options.test_ids=8"),
    *("--config.batch.identities=8", "--config.data.validation_identities=8"),
    *("--config.schedule.epochs=0.5", "--config.eval.every_epochs=0.5"),
]


@pytest.mark.slow  # some six processes, each with the start of jax
@pytest.mark.parametrize(
    "train",
    [
        pytest.param(SMALL, id="small"),
        pytest.param(DEMO, id="demo"),  # compiles OSNet
    ],
)
def test_the_demo_works_without_linux(train, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 30, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "images/a.png"), noise)
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])

    def run(*arguments):
        done = run_python(*arguments, env={"PYTHONPATH": path}, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import os; print(hasattr(os, 'sched_getaffinity'))") == "False\n"
    start = train[: train.index("train")]
    run(*train, "--workdir=run", "--config.data.dir=data")
    results = json.loads((tmp_path / "run/eval.json").read_text())["results"]
    run(*start, "evaluate", "--workdir", "run", "--out", "again.json")
    assert json.loads((tmp_path / "again.json").read_text())["results"] == results
    run(*start, "extract", "--checkpoint", "run", "--images", "images",
        "--modality", "visible", "--out", "a.npz")  # fmt: skip
    with np.load(tmp_path / "a.npz") as file:
        assert np.isfinite(file["features"]).all()
    release = ROOT / "datasets/llcm/dummy_data"
    out = run(*start, "prepare", "--dataset", "llcm", "--source", str(release),
              "--data_dir", "data")  # fmt: skip
    assert out.count("new") == 2
