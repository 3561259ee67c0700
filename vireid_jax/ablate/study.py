"""Read the rows of a study, and train those that are not done yet."""

import inspect
import json
import runpy
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from rich.console import Console

from vireid_jax.ablate.table import CODE, RESULTS, TEST, check_same, read_results
from vireid_jax.config import REMOVED, decisive, validate, with_defaults
from vireid_jax.configs import find_config, get_config
from vireid_jax.embed.embedder import load
from vireid_jax.evaluate.compare_runs import queries_path
from vireid_jax.evaluate.test_split import evaluate_test_split
from vireid_jax.run.environment import environment
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import replace_text
from vireid_jax.run.stopping import Stop
from vireid_jax.train import train_run


class StudyRun(NamedTuple):
    """One row of a study with one seed."""

    row: str
    seed: int
    config: ConfigDict

    @property
    def folder(self) -> str:
        """Return its workdir inside the study's."""
        return f"{self.row}/seed_{self.seed}"


class Study(NamedTuple):
    """Rows by name, each a function without arguments that returns its config."""

    name: str
    rows: dict[str, Callable[[], ConfigDict]]
    baseline: str
    elsewhere: dict[str, dict[str, Any]]  # by name: changes that give another test set

    def runs(self, seeds: int) -> Iterator[StudyRun]:
        """Yield all rows with the first seed, then all with the next."""
        for seed in range(seeds):
            for row, create in self.rows.items():
                config = create()
                config.seed = seed
                yield StudyRun(row, seed, config)


def read_study(
    path: Path,
    overrides: dict[str, Any] | None = None,
    rows: Sequence[str] = (),
    baseline: str | None = None,
    base: str | None = None,
) -> Study:
    """Read a study's file; `overrides` change every row, `rows` are the chosen ones.

    `base`, FILE.py[:ARGUMENT], is another config to change than the study's own, with
    its own test set alone. Raise UserError where the file has no `ROWS`, or a row is
    not among them.
    """
    module = runpy.run_path(str(path))
    change: Any = module.get("get_config")
    parameters = inspect.signature(change).parameters if change else {}
    if "ROWS" not in module or not {"row", "base"} <= {*parameters}:
        raise UserError(
            f"{path} has no table ROWS, or no get_config(row=..., base=...); give a"
            " study, such as configs/ablations/sharing.py"
        )
    baseline = baseline or parameters["row"].default
    names = list(module["ROWS"])
    for row in (*rows, baseline):
        if row not in names:
            raise UserError(f"no row {row!r} in {path}; valid values: {names}")
    if base:
        path_of_base = find_config(base, "--base")
        change = partial(change, base=partial(get_config, path_of_base))

    def config_of(row: str) -> ConfigDict:
        config = change(row)
        config.update_from_flattened_dict(overrides or {})
        return config

    chosen = [row for row in names if not rows or row in rows or row == baseline]
    getters: dict[str, Callable[[], ConfigDict]]
    getters = {row: partial(config_of, row) for row in chosen}
    elsewhere = {} if base else module.get("ELSEWHERE", {})
    return Study(path.stem, getters, baseline, elsewhere)


def run_study(
    study: Study, seeds: int, workdir: Path, stop: Stop, reuse: Sequence[Path] = ()
) -> None:
    """Train what is not done yet; write a line of results after each run.

    A run that was done with the same settings in a study among `reuse` is not trained:
    its results are copied. Raise UserError where the workdir has results of a run with
    another config or code.
    """
    here, lines = environment(), read_results(workdir)
    check_same(workdir, [*lines, here], CODE)
    done = {(line["row"], line["seed"]): line for line in lines}
    runs = list(study.runs(seeds))
    for number, run in enumerate(runs, 1):
        if line := done.get((run.row, run.seed)):
            _check_same(run, line, workdir)
            continue
        if source := _reuse(study, run, workdir, reuse, here):
            sys.stdout.write(f"=== {run.folder} is that of {source}\n")
            continue
        sys.stdout.write(
            f"=== {study.name}, run {number} of {len(runs)}: {run.folder}\n"
        )
        sys.stdout.flush()
        start, folder = time.perf_counter(), workdir / run.folder
        train_run(run.config, folder, stop)
        for name, changes in study.elsewhere.items():
            _test_elsewhere(folder, name, changes)
        results = {}
        for name in (TEST, *study.elsewhere):
            evaluation = json.loads((folder / f"{name}.json").read_text())
            results[name] = [r for r in evaluation["results"] if not r["baseline"]]
        trained = json.loads((folder / "environment.json").read_text())
        line = {"study": study.name, "row": run.row, "seed": run.seed}
        line |= {key: trained[key] for key in CODE}
        # Seconds are those of the last process alone if the run was stopped.
        line |= {"seconds": round(time.perf_counter() - start, 1)}
        line |= {"results": results, "config": _settings(run.config)}
        _add_line(workdir, line)


def _reuse(
    study: Study,
    run: StudyRun,
    workdir: Path,
    reuse: Sequence[Path],
    here: dict[str, Any],
) -> Path | None:
    """Copy the results of a run of another study that differs only in its name.

    Return that run's folder, or None if there is none of this code and machine.
    """
    tests = (TEST, *study.elsewhere)
    wanted = {key: here[key] for key in CODE} | {"config": _settings(run.config)}
    for other in reuse:
        for line in read_results(other):
            same = all(line[key] == value for key, value in wanted.items())
            if not same or set(tests) - line["results"].keys():
                continue
            source = other / line["row"] / f"seed_{line['seed']}"
            target = workdir / run.folder
            target.mkdir(parents=True, exist_ok=True)
            for test in tests:
                path = source / f"{test}.json"
                for file in (path, queries_path(path)):
                    shutil.copyfile(file, target / file.name)
            _add_line(workdir, line | {"study": study.name, "row": run.row})
            return source
    return None


def _test_elsewhere(folder: Path, name: str, changes: dict[str, Any]) -> None:
    """Test a run's last epoch on another set; write NAME.json beside eval.json."""
    embedder = load(folder)
    config = ConfigDict(with_defaults(embedder.about.config))
    with config.unlocked():  # options of walkers that the run left as they were
        config.update_from_flattened_dict(changes)
    evaluate_test_split(
        embedder,
        config,
        about=embedder.about,
        selection="last",
        path=folder / f"{name}.json",
        console=Console(emoji=False),
    )


def _settings(config: ConfigDict) -> dict[str, Any]:
    """Return what decides a run's numbers, with the types that JSON has."""
    return json.loads(json.dumps(decisive(validate(config)), default=str))


def _check_same(run: StudyRun, line: dict[str, Any], workdir: Path) -> None:
    """Raise UserError where a finished run was trained with other settings."""
    now = _settings(run.config)
    then = {key: x for key, x in line["config"].items() if key not in REMOVED}
    for key in sorted(now.keys() | then.keys()):
        if now.get(key) != then.get(key):
            raise UserError(
                f"{workdir} has {run.folder} with {key}={then.get(key)!r}, and now"
                f" it is {now.get(key)!r}; one table is of one setting. Give another"
                " --workdir"
            )


def _add_line(workdir: Path, line: dict[str, Any]) -> None:
    """Add a line atomically: the file is replaced."""
    path = workdir / RESULTS
    lines = path.read_text() if path.exists() else ""
    replace_text(path, lines + json.dumps(line) + "\n")
