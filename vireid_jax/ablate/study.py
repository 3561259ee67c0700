"""Read the rows of a study, and train those that are not done yet."""

import functools
import inspect
import json
import runpy
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vireid_jax import configs
from vireid_jax.run.errors import UserError


class Run(NamedTuple):
    """One row of a study with one seed."""

    row: str
    seed: int
    config: ConfigDict

    @property
    def folder(self) -> str:
        """Names its workdir inside the study's."""
        return f"{self.row}/seed_{self.seed}"


class Study(NamedTuple):
    """Rows by name, each a function of nothing that returns its config."""

    name: str
    rows: dict[str, Callable[[], ConfigDict]]
    baseline: str
    elsewhere: dict[str, dict[str, Any]]  # by name: changes that give another test set

    def runs(self, seeds: int) -> Iterator[Run]:
        """Yields all rows with the first seed, then all with the next."""
        for seed in range(seeds):
            for row, get_config in self.rows.items():
                config = get_config()
                config.seed = seed
                yield Run(row, seed, config)


def read_study(
    path: Path,
    overrides: dict[str, Any] | None = None,
    rows: Sequence[str] = (),
    baseline: str | None = None,
    base: str | None = None,
) -> Study:
    """Reads a study's file; `overrides` change every row, `rows` are those wanted.

    `base` names another config than the study's own to change, with its own test set
    alone. Raises UserError where the file has no `ROWS`, or a row is not among them.
    """
    module = runpy.run_path(str(path))
    change: Any = module.get("get_config")
    parameters = inspect.signature(change).parameters if change else {}
    if "ROWS" not in module or not {"row", "base"} <= {*parameters}:
        raise UserError(
            f"{path} has no table ROWS, or no get_config(row=..., base=...); give a"
            " study, such as configs/ablations/sharing.py"
        )
    legal = list(module["ROWS"])
    baseline = baseline or parameters["row"].default
    upon = ()
    if base:
        upon = (
            functools.partial(configs.get_config, configs.find_config(base, "--base")),
        )
    for row in (*rows, baseline):
        if row not in legal:
            raise UserError(f"there is no row {row!r} in {path}; legal are {legal}")

    def getter(row: str) -> Callable[[], ConfigDict]:
        def get_config() -> ConfigDict:
            config = change(row, *upon)
            config.update_from_flattened_dict(overrides or {})
            return config

        return get_config

    wanted = [row for row in legal if not rows or row in rows or row == baseline]
    rows = {row: getter(row) for row in wanted}
    return Study(path.stem, rows, baseline, {} if base else module.get("ELSEWHERE", {}))


def run_study(
    study: Study, seeds: int, workdir: Path, stop: Any, reuse: Sequence[Path] = ()
) -> None:
    """Trains what is not done yet; writes a line of results after each run.

    A run that was done with the same settings in a study among `reuse` is not trained:
    its results are copied. Raises UserError where results are there of a run with
    another config or code.
    """
    from vireid_jax.ablate.table import CODE, read_results
    from vireid_jax.run.environment import environment
    from vireid_jax.train import train_run

    here = environment()
    for line in read_results(workdir):
        for key in CODE:
            if line[key] != here[key]:
                raise UserError(
                    f"{workdir} has runs with {key} {line[key]!r}, and now it is"
                    f" {here[key]!r}; one table is of one code on one machine. Give"
                    " another --workdir"
                )
    done = {(line["row"], line["seed"]): line for line in read_results(workdir)}
    runs = list(study.runs(seeds))
    for number, run in enumerate(runs, 1):
        line = done.get((run.row, run.seed))
        if line is not None:
            _check_same(run, line, workdir)
            continue
        if taken := _take_over(study, run, workdir, reuse, here):
            sys.stdout.write(f"=== {run.folder} is that of {taken}\n")
            continue
        sys.stdout.write(
            f"=== {study.name}, run {number} of {len(runs)}: {run.folder}\n"
        )
        sys.stdout.flush()
        start = time.perf_counter()
        train_run(run.config, workdir / run.folder, stop)
        for name, changes in study.elsewhere.items():
            _test_elsewhere(workdir / run.folder, name, changes)
        seconds = time.perf_counter() - start
        _add_line(workdir, _line_of(study, run, workdir / run.folder, seconds))


def _take_over(
    study: Study,
    run: Run,
    workdir: Path,
    reuse: Sequence[Path],
    here: dict[str, Any],
) -> Path | None:
    """Copies the results of a run elsewhere that differs in its name alone.

    Returns that run's folder, or None where there is none of this code and machine.
    """
    from vireid_jax.ablate.table import CODE, TEST, read_results
    from vireid_jax.evaluate.compare_runs import queries_path

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
                for one in (path, queries_path(path)):
                    shutil.copyfile(one, target / one.name)
            _add_line(workdir, line | {"study": study.name, "row": run.row})
            return source
    return None


def _test_elsewhere(folder: Path, name: str, changes: dict[str, Any]) -> None:
    """Tests a run's last epoch on another set; writes NAME.json beside eval.json."""
    from rich.console import Console

    from vireid_jax.config import with_defaults
    from vireid_jax.embed.embedder import load
    from vireid_jax.evaluate.test_split import evaluate_test_split

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
    """Returns what decides a run's numbers, as JSON would give it back."""
    from vireid_jax.config import decisive, validate

    return json.loads(json.dumps(decisive(validate(config)), default=str))


def _check_same(run: Run, line: dict[str, Any], workdir: Path) -> None:
    """Raises UserError where a finished run had other settings than it would now."""
    now, then = _settings(run.config), line["config"]
    differ = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
    if differ:
        key = differ[0]
        raise UserError(
            f"{workdir} has {run.folder} with {key}={then.get(key)!r}, and now"
            f" it is {now.get(key)!r}; one table is of one setting. Give another"
            " --workdir"
        )


def _line_of(study: Study, run: Run, folder: Path, seconds: float) -> dict[str, Any]:
    from vireid_jax.ablate.table import TEST

    results = {}
    for name in (TEST, *study.elsewhere):
        found = json.loads((folder / f"{name}.json").read_text())["results"]
        results[name] = [result for result in found if not result["baseline"]]
    here = json.loads((folder / "environment.json").read_text())
    return {
        "study": study.name,
        "row": run.row,
        "seed": run.seed,
        "commit": here["commit"],
        "processor": here["processor"],
        "packages": here["packages"],
        "seconds": round(seconds, 1),  # of the last process alone, if it was stopped
        "results": results,
        "config": _settings(run.config),
    }


def _add_line(workdir: Path, line: dict[str, Any]) -> None:
    """Adds a line; the file is replaced as a whole, so that it is never half one."""
    from vireid_jax.ablate.table import RESULTS
    from vireid_jax.run.files import replace_text

    path = workdir / RESULTS
    before = path.read_text() if path.exists() else ""
    replace_text(path, before + json.dumps(line) + "\n")
