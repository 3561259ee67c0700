"""The notebooks: stored without outputs, correct badges, and both run to the end."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "launch/notebooks"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
COLAB = "https://colab.research.google.com/github/vireid-jax/vireid_jax/blob/main"
# The output of the last cell, in the short form.
ENDS = {
    "quick_start.ipynb": (r"Rank-1 by hand +([\d.]+) %\nRank-1 in eval\.json +\1 %\n"),
    "your_own_data.ipynb": (
        r"step \d+, images of 64x32\n"
        r"visible \(8, 64, 32, 3\) -> \(8, 128\)\n"
        r"infrared \(8, 64, 32, 3\) -> \(8, 128\)\n"
    ),
}
OUTPUT = {
    "quick_start.ipynb": [
        "No GPU or TPU was found",
        "Metrics in percent",
        "walkers/visible-to-infrared",
    ],
    "your_own_data.ipynb": [
        "1 of ",
        "is saved; the same command",
        "Resuming from step",
    ],
}


def read(name):
    return nbformat.read(FOLDER / name, as_version=4)


def text_of(cell):
    return "".join(out.text for out in cell.outputs if out.output_type == "stream")


def test_there_are_two():
    assert sorted(ENDS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_stored_valid_without_outputs_and_as_jupyter_writes_it(name):
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
    text = (FOLDER / name).read_text()
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_badge_links_to_the_file(name):
    (link,) = re.findall(r"\]\(([^\s)]+\.ipynb)\)", read(name).cells[0].source)
    assert link == f"{COLAB}/launch/notebooks/{name}"


def test_both_begin_with_the_same_cell():
    first, second = (
        next(c.source for c in read(name).cells if c.cell_type == "code")
        for name in NAMES
    )
    assert first == second
    assert 'find_spec("vireid_jax") is None' in first


# Slow: a kernel that compiles and trains a network, a minute or two.
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_to_its_end(name, tmp_path, compiled_once, monkeypatch):
    for key, value in compiled_once.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("VIREID_SHORT", "1")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    # Saves a quarter of the time: the code runs only for seconds.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
    notebook = read(name)
    client = NotebookClient(
        notebook,
        timeout=1200,  # per cell, on a loaded machine
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    output = "".join(
        text_of(cell) for cell in notebook.cells if cell.cell_type == "code"
    )
    assert "\x1b[" not in output  # no progress bar
    for words in OUTPUT[name]:
        assert words in output
    assert re.search(ENDS[name], text_of(notebook.cells[-1])), output
