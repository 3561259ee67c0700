"""The benchmarks: statistics of times, tables, and refusals."""

import io
import json
import sys

import numpy as np
import pytest
from python_process import run_python
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import duel, report
from benchmarks.cases import QUICK, QUICK_SEARCH
from benchmarks.pairs import OutputsError, check_outputs, paired_ratio, summary
from benchmarks.pipe import ROOT, Worker, WorkerError
from benchmarks.profile import WAITING, operations, profile, share_out

DUEL = {
    "task": "eval",
    "case": "osnet",
    "allocator": "tuned",
    "rival_name": "torch eager",
    "ours": {"median": 0.2, "low": 0.1, "high": 0.3},
    "rival": {"median": 0.5, "low": 0.4, "high": 0.6},
    "ratio": {"value": 2.5, "low": 2.0, "high": 3.0},
    "ours_mib": 100.0,
    "rival_mib": 200.0,
    "others": 0.01,
}


@pytest.fixture
def results():
    machine = {"processor": "Abacus", "cpus": 2, "threads": 2, "memory_gib": 24.0}
    machine |= {"python": "3.11.7", "commit": "abc", "date": "2026-01-01"}
    return {
        "machine": machine,
        "versions": {"jax": "0.10", "torch": "2.13"},
        "quick": False,
        "rounds": 7,
        "eval": [dict(DUEL)],
    }


def test_summary_is_median_minimum_and_maximum():
    assert summary([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_a_slow_round_that_both_sides_had_leaves_the_ratio():
    ours, rival = [1.0, 10.0, 1.0], [2.0, 20.0, 2.0]
    assert paired_ratio(ours, rival) == {"value": 2.0, "low": 2.0, "high": 2.0}


def test_the_interval_of_a_ratio_holds_it_and_widens_with_the_spread():
    rng = np.random.default_rng(0)
    ours = np.ones(20)
    narrow = paired_ratio(ours, 2 + 0.1 * rng.random(20))
    wide = paired_ratio(ours, 2 + rng.random(20))
    for ratio in (narrow, wide):
        assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert narrow["high"] - narrow["low"] < wide["high"] - wide["low"]


def test_outputs_are_compared_absolutely_or_relatively():
    embeddings = np.ones((2, 3), np.float32)
    found = check_outputs(
        {"embeddings": embeddings, "loss": 8.0},
        {"embeddings": embeddings + 5e-5, "loss": 8.004},
        "torch",
    )
    assert found == pytest.approx({"embeddings": 5e-5, "loss": 5e-4}, rel=1e-2)


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (1.0, 1.01, r"torch eager: loss differs by .*0\.001"),
        (1.0, np.nan, r"torch eager: loss differs by .*0\.001"),
        (np.ones((2, 2)), np.ones((3, 2)), r"loss is \(3, 2\), ours is \(2, 2\)"),
    ],
)
def test_outputs_that_differ_are_named(ours, theirs, words):
    with pytest.raises(OutputsError, match=words):
        check_outputs({"loss": ours}, {"loss": theirs}, "torch eager")


class Other:
    """A worker that needs no process."""

    peak_mib, cpu_seconds, facts = 1.0, 0.0, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self):
        return 0.1


class OtherRing(duel.Ring):
    """A ring whose rival gives a loss of 2, where ours is 1."""

    def start(self, *_):
        return Other()

    def outputs(self, side):
        return {"loss": {"ours": 1.0, "rival": 2.0}[side]}


def test_rivals_whose_outputs_differ_are_not_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(duel, "in_turn", lambda *_: pytest.fail("they were timed"))
    ring = OtherRing(tmp_path, "python", rounds=2, threads=1)
    with pytest.raises(OutputsError, match="torch eager: loss differs by 1"):
        duel.duel(ring, Other(), ("python", "rival", {}), "torch eager", "tuned")


def test_differing_outputs_end_the_command_with_one_line(monkeypatch):
    def stop(*_):
        raise OutputsError("torch eager: loss differs by 1")

    monkeypatch.setitem(command.MEASURES, "eval", stop)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "eval", "--quick"])
    with pytest.raises(SystemExit, match=r"^error: torch eager: loss differs by 1$"):
        command.main()


def test_the_row_of_a_failed_rival_has_its_error(tmp_path, monkeypatch, results):
    def fail(*_):
        raise WorkerError("exit code 1: InvalidCxxCompiler: No working C++ compiler")

    ring = duel.Ring(tmp_path, "python", rounds=2, threads=1)
    monkeypatch.setattr(duel.Ring, "start", fail)
    about = {"case": "osnet", "allocator": "tuned"}
    row = duel.duel(ring, Other(), (), "torch compiled", "tuned")
    results["eval"] = [about | row]
    assert "failed: exit code 1: InvalidCxxCompiler" in report.markdown(results)


def test_both_sides_begin_equally_often():
    order = []

    class Recorder(Other):
        def run(self):
            order.append(self)
            return 0.1

    ours, rival = Recorder(), Recorder()
    seconds = duel.in_turn(ours, rival, rounds=4)
    assert seconds == ([0.1] * 4, [0.1] * 4)
    assert order[2::2] == [ours, rival, ours, rival]  # the first two are not measured


def test_a_worker_answers_until_it_is_closed(tmp_path):
    job = QUICK_SEARCH.job() | {"threads": 1, "outputs": str(tmp_path / "found.npz")}
    log = tmp_path / "log"
    with Worker(sys.executable, "benchmarks.search", job, {}, log) as worker:
        assert worker.facts["numpy"] == np.__version__
        assert worker.run() > 0
        assert worker.peak_mib > 10
    with np.load(tmp_path / "found.npz") as found:
        similarities = found["similarities"]
    assert similarities.shape == (QUICK_SEARCH.queries, QUICK_SEARCH.k)
    assert (np.diff(similarities) <= 0).all()


def test_the_error_of_a_dead_worker_is_in_the_message(tmp_path):
    with pytest.raises(WorkerError, match="exit code 1: KeyError: 'threads'"):
        Worker(sys.executable, "benchmarks.search", {}, {}, tmp_path / "log")


def measure_without_pytorch(part, tmp_path):
    missing = str(tmp_path / "python")
    arguments = command.read_arguments(["--only", part, "--rival", missing])
    output = io.StringIO()
    command.measure(arguments, Console(file=output))
    return output.getvalue()


def test_without_pytorch_only_vireid_jax_is_measured(tmp_path, monkeypatch):
    rings = []
    measure = lambda ring, *_: rings.append(ring) or []
    monkeypatch.setitem(command.MEASURES, "eval", measure)
    first = measure_without_pytorch("eval", tmp_path).splitlines()[0]
    assert rings[0].rival is None
    assert str(tmp_path / "python") in first
    assert "`make bench-env` installs it" in first


def test_parts_without_pytorch_do_not_ask_for_it(tmp_path, monkeypatch):
    monkeypatch.setitem(command.MEASURES, "ranking", lambda *_: {})
    assert measure_without_pytorch("ranking", tmp_path) == "ranking ...\n"


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.read_arguments(["--only", "train,evil"])
    error = capsys.readouterr().err
    assert "'evil'" in error
    assert "valid values: train, eval" in error


@pytest.fixture
def docs(tmp_path, monkeypatch):
    path = tmp_path / "performance.md"
    path.write_text("Before\n<!-- bench -->\nold\n<!-- /bench -->\nAfter\n")
    monkeypatch.setattr(command, "DOCS", path)
    return path


def write_docs_from(tmp_path, results, monkeypatch):
    source = tmp_path / "bench.json"
    source.write_text(json.dumps(results))
    given = ["benchmarks", "--from", str(source), "--write_docs"]
    monkeypatch.setattr(sys, "argv", given)
    command.main()


def test_saved_results_are_written_into_the_docs(tmp_path, monkeypatch, docs, results):
    write_docs_from(tmp_path, results, monkeypatch)
    text = docs.read_text()
    assert text.startswith("Before\n<!-- bench -->\n### Embedding\n")
    assert text.endswith("<!-- /bench -->\nAfter\n")
    assert "old" not in text
    row = (
        "| osnet | tuned | torch eager | 200 (100 to 300) | 500 (400 to 600)"
        " | 2.50 (2.00 to 3.00) | 100 / 200 |"
    )
    assert row in text
    assert "Abacus, 2 processors" in text


def test_every_part_has_its_table(results):
    state = {"seconds": 9.0, "import_seconds": 2.0, "first_run_seconds": 6.0}
    state |= {"prepare_seconds": 1.0, "peak_mib": 300.0}
    results["compile"] = {"case": "osnet", "cold": state, "cached": state}
    loop = {"seconds": 0.3, "loop_seconds": 1.8, "ratio": 6.0}
    results["ranking"] = {"10_trials_of_3803x301": loop}
    parts = {"stem": {"forward": 1.0, "backward": 2.0}}
    parts["optimizer"] = {"forward": 9.0, "backward": 0.0}
    results["profile"] = {"osnet": parts}
    results["input"] = {"images_per_s": {"cache=none threads=2": 5000}}
    text = report.markdown(results)
    assert "| osnet, cached | 9.0 | 2.0 | 1.0 | 6.0 | 300 |" in text
    assert "| optimizer | 9.0 | 0.0 | 75% |\n| stem | 1.0 | 2.0 | 25% |" in text
    assert "| 10 trials of 3803x301 | 0.3 | 1.8 | 6.0 |" in text
    assert "| cache=none threads=2 | 5000 |" in text


@pytest.mark.parametrize("reason", ["Other processes took up to 70%", "--quick is no"])
def test_unreliable_results_are_not_written(
    reason, tmp_path, monkeypatch, docs, results
):
    results["quick"] = "quick" in reason
    results["eval"][0]["others"] = 0.7
    with pytest.raises(SystemExit, match=reason):
        write_docs_from(tmp_path, results, monkeypatch)
    assert "old" in docs.read_text()


def test_moments_are_split_between_the_operations_in_them():
    spans = [(0, 4, "a"), (1, 3, "b"), (2, 3, "b"), (5, 6, "c")]
    found = share_out(spans)
    # From 1 to 2 both have a half, from 2 to 3 each of three spans has a third.
    assert found["a"] == pytest.approx(1 + 1 / 2 + 1 / 3 + 1)
    assert found["b"] == pytest.approx(1 / 2 + 2 / 3)
    assert found["c"] == pytest.approx(1)
    assert found[WAITING] == pytest.approx(1)


def test_operations_are_classified_by_scope_and_instructions():
    program = """
%inner (p: f32[4,4]) -> f32[4,4] {
  %p = f32[4,4]{1,0} parameter(0)
  ROOT %d = f32[4,4]{1,0} dot(%p, %p)
}

ENTRY %main (x: f32[4,4]) -> f32[4,4] {
  %f.1 = f32[4,4]{1,0} fusion(%x), calls=%inner, metadata={op_name="jit(s)/Net/dot"}
  %f.2 = f32[4,4]{1,0} add(%x, %x), metadata={op_name="transpose(Net)/stem_patches/a"}
  ROOT %g = f32[4,4]{1,0} add(%f.1, %f.2)
}
"""
    found = operations(program)
    assert found["f.1"].kind == "1x1 convolutions, classifier"
    assert found["f.1"].direction == "forward"
    assert (found["f.2"].kind, found["f.2"].direction) == ("stem", "backward")
    assert found["g"].kind == "losses and the rest"


@pytest.mark.slow  # compiles a training step
def test_most_of_a_step_is_classified():
    found = profile(QUICK[0])
    step = sum(sum(row.values()) for row in found.values())
    assert step > 0
    for kind in ("1x1 convolutions, classifier", "depthwise 3x3", "sums over pixels"):
        assert min(found[kind].values()) > 0
    assert sum(found["losses and the rest"].values()) < 0.3 * step


@pytest.mark.slow  # compiles a training step
def test_the_quick_form_runs_without_a_rival(tmp_path):
    out = tmp_path / "bench.json"
    cache = {  # what one allocator's worker compiled the other's reads
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
    }
    options = ["--quick", "--only", "eval,train", "--json", str(out)]
    options += ["--rival", "/missing/python"]
    done = run_python("-m", "benchmarks", *options, cwd=ROOT, env=cache)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    for part in ("eval", "train"):
        allocators = [row["allocator"] for row in results[part]]
        assert allocators == ["out of the box", "tuned"]
        for row in results[part]:
            assert row["case"] == str(QUICK[0])
            assert row["ours"]["median"] > 0
            assert "rival" not in row
    assert "torch" not in results["versions"]
