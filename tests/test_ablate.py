"""A study: rows trained with several seeds, each once, and compared in a table."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from refusals import command

from vireid_jax.ablate.__main__ import main
from vireid_jax.ablate.study import Study, read_study, run_study
from vireid_jax.ablate.table import (
    METRICS,
    RESULTS,
    Setting,
    StudyRow,
    markdown,
    svg,
)
from vireid_jax.protocols.uncertainty import crossed_interval, identity_interval
from vireid_jax.run.stopping import Stop

CONFIGS = Path(__file__).parents[1] / "configs"
STUDY = """
from small_run import config_of
from vireid_jax.config import with_row

ELSEWHERE = {"turned": {"data.options.heading_range": 150.0}}
ROWS = {"fast": {}, "slow": {"optimizer.learning_rate": 1e-5}, "unused": {}}

def get_config(row="fast", base=lambda: config_of("DATA")):
    return with_row(base(), ROWS, row)
"""


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    path = folder / "rates.py"
    path.write_text(STUDY.replace("DATA", str(folder / "data")))
    return path


class TestStudy:
    def test_rows_come_with_every_seed_and_the_changes_of_flags(self, study_file):
        study = read_study(study_file, {"schedule.epochs": 0.5}, ["slow"])
        assert (study.name, study.baseline) == ("rates", "fast")
        runs = list(study.runs(2))
        folders = ["fast/seed_0", "slow/seed_0", "fast/seed_1", "slow/seed_1"]
        assert [run.folder for run in runs] == folders
        assert [run.config.seed for run in runs] == [0, 0, 1, 1]
        assert all(run.config.schedule.epochs == 0.5 for run in runs)
        assert runs[1].config.optimizer.learning_rate == 1e-5

    def test_another_config_takes_the_same_changes(self, study_file):
        regdb = str(CONFIGS / "regdb.py")
        study = read_study(study_file, base=f"{regdb}:trial=3")
        configs = [study.rows[row]() for row in ("fast", "slow")]
        assert [config.data.variant for config in configs] == ["trial_3"] * 2
        assert configs[1].optimizer.learning_rate == 1e-5
        assert configs[0].optimizer.learning_rate > 1e-5
        assert study.elsewhere == {}  # that is walkers
        with pytest.raises(ValueError, match=r"--base regd\.py: .* no config"):
            read_study(study_file, base="regd.py")

    def test_a_row_that_is_not_there_is_refused(self, study_file):
        with pytest.raises(ValueError, match=r"no row 'fats' in .* \['fast'"):
            read_study(study_file, rows=["fats"])
        with pytest.raises(ValueError, match="no row 'fats'"):
            read_study(study_file, baseline="fats")

    @pytest.mark.mistakes("evaluation")
    def test_a_file_without_rows_is_refused(self, refuses, tmp_path):
        path = tmp_path / "demo.py"
        path.write_text("def get_config(): ...")
        refuses("a config as a study", lambda: read_study(path), "has no table ROWS")


@pytest.mark.mistakes("evaluation")
@pytest.mark.parametrize(
    ("title", "given", "reason"),
    [
        ("a row that a study has not", "--rows=nine", "no row 'nine' in "),
        ("a key that is not one, for a study", "--config.data.sise=3", "data.sise"),
        ("a study without seeds", "--seeds=0", "seeds"),
        ("a study upon no config", "--base=none.py", "no config none.py"),
    ],
)
def test_a_mistake_ends_with_one_line(title, given, reason, refuses, tmp_path):
    flags = (f"--config={CONFIGS / 'ablations/sharing.py'}", f"--workdir={tmp_path}")
    action = lambda: command(*flags, given, module="vireid_jax.ablate")
    refuses(title, action, reason)


def test_help_is_of_its_own_flags(capsys):
    main(["--help"])
    assert "--reuse: Other studies' --workdir." in capsys.readouterr().out


@pytest.fixture(scope="module")
def done(study_file, small_network, compiled_once, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    study = read_study(study_file, rows=["slow"])
    run_study(study, 1, workdir, Stop())
    first = (workdir / RESULTS).read_text()
    run_study(study, 2, workdir, Stop())
    return study, workdir, first


@pytest.mark.slow  # trains a small network four times
@pytest.mark.usefixtures("small_network", "compiled_once")
class TestRuns:
    def test_finished_runs_are_not_trained_again(self, done):
        _, workdir, first = done
        text = (workdir / RESULTS).read_text()
        assert text.startswith(first)
        lines = [json.loads(line) for line in text.splitlines()]
        rows = [(line["row"], line["seed"]) for line in lines]
        assert rows == [("fast", 0), ("slow", 0), ("fast", 1), ("slow", 1)]

    def test_the_table_has_means_and_paired_differences(self, done):
        study, workdir, _ = done
        text = markdown(workdir, study.baseline)
        lines = [json.loads(x) for x in (workdir / RESULTS).read_text().splitlines()]
        protocol = lines[0]["results"]["eval"][0]["protocol"]
        rank1 = [
            100 * line["results"]["eval"][0]["metrics"]["Rank-1"]
            for line in lines
            if line["row"] == "slow"
        ]
        spread = np.std(rank1, ddof=1)
        assert f"### {protocol}" in text
        assert f"| `slow` | 2 | {np.mean(rank1):.1f} ± {spread:.1f} |" in text
        (row,) = [x for x in text.split("###")[1].splitlines() if "`slow`" in x]
        assert row.count(" to ") == 2
        assert f"### {protocol}, turned" in text
        own, turned = (lines[0]["results"][n][0]["metrics"] for n in ("eval", "turned"))
        assert own != turned

    def test_a_run_of_the_same_settings_is_taken_from_another_study(
        self, done, tmp_path
    ):
        study, workdir, _ = done
        rows = {"plain": study.rows["fast"]}
        again = Study("again", rows, "plain", study.elsewhere)
        run_study(again, 2, tmp_path, Stop(), [workdir])
        assert not (tmp_path / "plain/seed_0/checkpoints").exists()
        lines = [json.loads(x) for x in (tmp_path / RESULTS).read_text().splitlines()]
        runs = [(x["study"], x["row"], x["seed"]) for x in lines]
        assert runs == [("again", "plain", 0), ("again", "plain", 1)]
        rows = lambda folder, name: [
            line.split("|")[2:]
            for line in markdown(folder, name).splitlines()
            if line.startswith(f"| `{name}`")
        ]
        assert rows(tmp_path, "plain") == rows(workdir, "fast")

    def test_other_settings_do_not_get_into_the_table(self, study_file, done):
        _, workdir, _ = done
        other = read_study(study_file, {"optimizer.weight_decay": 0.5}, ["slow"])
        with pytest.raises(ValueError, match=r"weight_decay=.* now it is 0.5"):
            run_study(other, 2, workdir, Stop())

    def test_other_code_does_not_get_into_the_table(self, done, tmp_path):
        study, workdir, _ = done
        lines = [json.loads(x) for x in (workdir / RESULTS).read_text().splitlines()]
        lines[1]["commit"] = "another"
        (tmp_path / RESULTS).write_text("\n".join(map(json.dumps, lines)) + "\n")
        with pytest.raises(ValueError, match=r"commit .*'another'"):
            markdown(tmp_path, study.baseline)
        with pytest.raises(ValueError, match=r"commit .*'another'"):
            run_study(study, 3, tmp_path, Stop())


class TestCrossedInterval:
    def test_one_seed_leaves_the_interval_over_identities(self):
        rng = np.random.default_rng(0)
        identity = np.repeat(np.arange(40), 3)
        values = rng.standard_normal((1, 120))
        value, low, high = crossed_interval(values, identity, np.ones(120, int))
        assert value == pytest.approx(values.mean())
        expected = identity_interval(values[0], identity)
        np.testing.assert_allclose((low, high), expected, atol=0.05)

    def test_seeds_that_differ_widen_it(self):
        identity = np.arange(50)
        noise = np.random.default_rng(0).standard_normal((3, 50))
        weight = np.ones(50, int)
        alike = crossed_interval(noise, identity, weight)
        apart = crossed_interval(noise + np.array([[-2], [0], [2]]), identity, weight)
        assert apart[0] == pytest.approx(alike[0])
        assert apart[2] - apart[1] > 3 * (alike[2] - alike[1])

    def test_queries_that_are_not_valid_do_not_count(self):
        values = np.array([[1.0, np.nan, 3.0], [1.0, np.nan, 3.0]])
        value, low, high = crossed_interval(values, np.arange(3), np.ones(3, int))
        assert value == 2.0
        assert 1 <= low < high <= 3


class TestFigure:
    def test_it_has_a_mark_for_each_row_and_the_interval_in_words(self):
        even = {metric: [50.0, 52.0] for metric in METRICS}
        rows = [
            StudyRow("plain", even, {}),
            StudyRow("more", even, {"Rank-1": (2.0, -1.0, 5.0)}),
            StudyRow("<less>", even, {"Rank-1": (-4.0, -6.0, -2.0)}),
        ]
        by_test = {Setting("eval", "a"): rows, Setting("shifted", "a"): rows}
        root = ElementTree.fromstring(svg(by_test, "plain"))
        space = "{http://www.w3.org/2000/svg}"
        titles = [x.text for x in root.iter(f"{space}title")]
        expected = ["more: +2.0 (-1.0 to +5.0)", "<less>: -4.0 (-6.0 to -2.0)"]
        assert titles == expected * 2
        words = [x.text for x in root.iter(f"{space}text")]
        assert {"a", "a, shifted", "-6.0", "0", "+5.0"} <= set(words)
        (zero,) = [p for p in root.iter(f"{space}path") if p.get("class") == "zero"]
        dots = [float(x.get("cx")) for x in root.iter(f"{space}circle")]
        at_zero = float(zero.get("d").split()[0][1:])
        assert dots[1] < at_zero < dots[0]
        # Distances from zero are as the numbers: -4 and +2.
        assert (at_zero - dots[1]) / (dots[0] - at_zero) == pytest.approx(2, abs=0.02)
