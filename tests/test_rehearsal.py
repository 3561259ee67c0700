"""From a release's tree to numbers: generate, prepare, train, test, for every set.

The network is small_run.py's; all else is what `configs/NAME.py:smoke` runs.
"""

import csv
import runpy
from pathlib import Path

import pytest

from vireid_jax.prepare import __main__ as prepare
from vireid_jax.synthetic.__main__ import main as synthesise
from vireid_jax.train import train_run

pytestmark = [
    pytest.mark.slow,  # trees are drawn, and XLA compiles a step for each
    pytest.mark.usefixtures("small_network", "compiled_once"),
]

CONFIGS = Path(__file__).parents[1] / "configs"
BOTH = ("visible-to-infrared", "infrared-to-visible")
PROTOCOLS = {
    "sysu_mm01": [
        f"sysu_mm01/{mode}/{shots}"
        for mode in ("all", "indoor")
        for shots in ("single", "multi")
    ],
    "regdb": [f"regdb/{direction}/trial_3" for direction in BOTH],
    "llcm": [f"llcm/{direction}" for direction in BOTH],
    "custom": [f"custom/{direction}" for direction in BOTH],
}


def run(command, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    command()


def as_csv(tree):
    """Write trial 3 of a RegDB tree as a custom set."""
    rows = []
    for modality, name in (("visible", "visible"), ("infrared", "thermal")):
        for split in ("train", "test"):
            for line in (tree / f"idx/{split}_{name}_3.txt").read_text().splitlines():
                image, label = line.split()
                person = int(label) + 100 * (split == "test")
                camera = 1 + (modality == "infrared")
                rows.append([image, person, camera, modality, split])
    with (tree / "mine.csv").open("w", newline="") as file:
        header = ["image", "identity", "camera", "modality", "split"]
        csv.writer(file).writerows([header, *rows])
    return tree / "mine.csv"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_release_is_rehearsed_from_its_tree_to_its_numbers(
    name, tmp_path, monkeypatch
):
    layout = "regdb" if name == "custom" else name
    tree = tmp_path / "tree"
    run(synthesise, monkeypatch, "--layout", layout, "--out", tree, "--ids", 20,
        "--size", "64x32", "--images", 4)  # fmt: skip
    source = as_csv(tree) if name == "custom" else tree
    data = tmp_path / "data"
    run(prepare.main, monkeypatch, "--dataset", name, "--source", source,
        "--data_dir", data)  # fmt: skip

    get_config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]
    config = get_config("smoke,trial=3" if name == "regdb" else "smoke")
    config.data.dir = str(data)
    config.model.pretrained = ""  # the small network is none of these weights
    results = train_run(config, tmp_path / "run")
    assert [result.labels.protocol for result in results] == PROTOCOLS[name]
    for result in results:
        published = result.labels.published_counts
        has_published = name in ("sysu_mm01", "regdb")
        assert published.startswith("differ: " if has_published else "none")
        assert 0 < result.mAP <= 1
