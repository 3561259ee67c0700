"""What is kept of studies, and that docs/results.md says what it gives."""

import json
import re
import shutil
import sys

import pytest

from benchmarks import studies
from vireid_jax.ablate.figure import svg
from vireid_jax.ablate.study import read_study
from vireid_jax.ablate.table import RESULTS, find, markdown

ROWS, SEEDS = ("baseline", "both"), (0, 1)
KEPT = sorted(path.parent.name for path in studies.KEPT.glob(f"*/{RESULTS}"))


@pytest.fixture
def workdir(tmp_path):
    """A study's workdir, with two rows of a kept one and what else runs leave."""
    kept, folder = studies.KEPT / "method", tmp_path / "run"
    lines = (kept / RESULTS).read_text().splitlines()
    folder.mkdir()
    chosen = [line for line in lines if json.loads(line)["row"] in ROWS]
    chosen = [line for line in chosen if json.loads(line)["seed"] in SEEDS]
    assert len(chosen) == 4
    (folder / RESULTS).write_text("\n".join(chosen) + "\n")
    for line in map(json.loads, chosen):
        run = f"{line['row']}/seed_{line['seed']}"
        shutil.copytree(kept / run, folder / run)
        (folder / run / "checkpoints").mkdir()
        (folder / run / "log.txt").write_text("started")
    return folder


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The command, with a docs folder of its own."""
    docs = tmp_path / "docs"
    docs.mkdir()
    document = docs / "results.md"
    document.write_text("before\n<!-- method -->\nold\n<!-- /method -->\nafter\n")
    monkeypatch.setattr(studies, "KEPT", docs / "results")
    monkeypatch.setattr(studies, "DOCUMENT", document)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["studies", *map(str, arguments)])
        studies.main()
        return document.read_text()

    return run


def test_what_the_table_needs_is_kept_and_written(workdir, elsewhere):
    expected = markdown(workdir, "baseline")
    text = elsewhere("--workdir", workdir)
    kept = studies.KEPT / "method"
    names = {path.name for path in kept.rglob("*") if path.is_file()}
    tests = {"eval.json", "eval.queries.npz", "shifted.json", "shifted.queries.npz"}
    assert names == {RESULTS, *tests}
    shutil.rmtree(workdir)
    assert markdown(kept, "baseline") == expected
    assert expected.count("| `both` | 2 |") == 4
    picture = "![differences of Rank-1](results/method.svg)"
    block = f"<!-- method -->\n{picture}\n\n{expected.strip()}\n<!-- /method -->"
    assert text == f"before\n{block}\nafter\n"
    drawn = svg(find(kept, "baseline"), "baseline")
    assert (studies.KEPT / "method.svg").read_text() == drawn
    assert elsewhere() == text  # from what is kept alone


def test_runs_that_were_added_are_kept_beside_the_others(workdir, elsewhere):
    lines = (workdir / RESULTS).read_text()
    (workdir / RESULTS).write_text("".join(lines.splitlines(True)[:2]))
    elsewhere("--workdir", workdir)
    (workdir / RESULTS).write_text(lines)
    assert "| `both` | 2 |" in elsewhere("--workdir", workdir)


def test_a_workdir_without_results_is_refused(elsewhere, tmp_path):
    with pytest.raises(
        SystemExit, match=rf"^error: .*docs has no {RESULTS}; give a [^\n]*$"
    ):
        elsewhere("--workdir", tmp_path / "docs")
    assert not studies.KEPT.exists()


def test_a_study_without_a_block_is_told(workdir, elsewhere):
    studies.DOCUMENT.write_text("nothing")
    with pytest.raises(SystemExit, match="has no block <!-- method -->"):
        elsewhere("--workdir", workdir)
    assert studies.DOCUMENT.read_text() == "nothing"


@pytest.mark.parametrize("name", KEPT)
def test_the_docs_say_what_the_kept_results_give(name):
    """No number in them is written by hand."""
    baseline = read_study(studies.ROOT / f"configs/ablations/{name}.py").baseline
    text = studies.DOCUMENT.read_text()
    block = re.search(rf"<!-- {name} -->\n(.*)<!-- /{name} -->", text, re.DOTALL)[1]
    picture = f"![differences of Rank-1](results/{name}.svg)"
    kept = studies.KEPT / name
    assert block == f"{picture}\n\n{markdown(kept, baseline).strip()}\n"
    drawn = svg(find(kept, baseline), baseline)
    assert (studies.KEPT / f"{name}.svg").read_text() == drawn
