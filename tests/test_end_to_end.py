"""One real training of seconds: the command trains, learns, tests, and a run is used.

The network is the tiny one of small_run.py; all else is what users run.
"""

import json

import numpy as np
import small_run

import vireid_jax
from vireid_jax import models


def test_a_run_learns_is_tested_and_embeds(tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    flags = (f"--config.data.dir={tmp_path / 'data'}", "--config.schedule.epochs=10")
    process = small_run.start(workdir, *flags, "--config.eval.every_epochs=5")
    code, out, err = small_run.finish(process)
    assert code == 0, err
    assert "60 steps" in out

    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])

    results = json.loads((workdir / "eval.json").read_text())["results"]
    directions = {result["protocol"] for result in results}
    assert directions == {"walkers/visible-to-infrared", "walkers/infrared-to-visible"}
    trained = [result for result in results if not result["baseline"]]
    assert all(0 < result["metrics"]["mAP"] <= 1 for result in trained)

    monkeypatch.setattr(models, "create", small_run.create)
    embedder = vireid_jax.load(workdir)
    gallery = embedder.embed(small_run.images_of(), "visible")
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, atol=1e-5)
    assert embedder.rank(gallery, gallery, top=1)[0].ravel().tolist() == [0, 1, 2, 3, 4]
