"""The notebooks: stored clean, badges that lead to them, and both run to their end."""

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
# The last cell's own words, in the short form.
ENDS = {
    "quick_start.ipynb": (r"Rank-1 by hand +([\d.]+) %\nRank-1 in eval\.json +\1 %\n"),
    "your_own_data.ipynb": (
        r"step \d+, images of 64x32\n"
        r"visible \(8, 64, 32, 3\) -> \(8, 128\)\n"
        r"infrared \(8, 64, 32, 3\) -> \(8, 128\)\n"
    ),
}
SAID = {
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
def test_the_badge_leads_to_the_file_itself(name):
    (link,) = re.findall(r"\]\(([^\s)]+\.ipynb)\)", read(name).cells[0].source)
    assert link == f"{COLAB}/launch/notebooks/{name}"


def test_both_begin_with_the_same_cell():
    first, second = (
        next(c.source for c in read(name).cells if c.cell_type == "code")
        for name in NAMES
    )
    assert first == second
    assert 'find_spec("vireid_jax") is None' in first


# Slow: a kernel, and in it a network compiled and trained as by hand: a minute or two.
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_to_its_end(name, tmp_path, compiled_once, monkeypatch):
    for key, value in compiled_once.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("VIREID_SHORT", "1")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    # A quarter less time: no effort on making code fast that runs for seconds.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
    notebook = read(name)
    client = NotebookClient(
        notebook,
        timeout=1200,  # of a cell, on a machine that does much else
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    said = "".join(text_of(cell) for cell in notebook.cells if cell.cell_type == "code")
    assert "\x1b[" not in said  # no bar was drawn as for a terminal
    for words in SAID[name]:
        assert words in said
    assert re.search(ENDS[name], text_of(notebook.cells[-1])), said
