"""From runs to one page: what is shown, in which order, and what is left out."""

import datetime
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid_jax.report import collect, tables
from vireid_jax.report.collect import Run
from vireid_jax.report.distances import camera_matrix, histograms
from vireid_jax.report.figures import (
    cmc_curves,
    distance_histograms,
    embedding_maps,
    training_curves,
)
from vireid_jax.report.maps import maps
from vireid_jax.report.rank_lists import KINDS, rank_lists
from vireid_jax.run.errors import UserError, explain_os_error
from vireid_jax.run.files import check_parent, replace_text


def write(workdirs: Sequence[Path], path: Path) -> int:
    """Writes the page of one run, or of two; returns its size in bytes.

    Raises UserError for more than two runs, runs that are not of one table, a run that
    was not evaluated, or a folder that is not there.
    """
    if len(workdirs) > 2:
        raise UserError(
            f"--workdir is given {len(workdirs)} times; give one run, or two to compare"
        )
    places = [workdir.resolve() for workdir in workdirs]
    if len(set(places)) < len(places):
        raise UserError(f"{workdirs[0]} is given twice; a run has no difference to it")
    if path.parent != workdirs[0]:
        check_parent(path)
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; name a file: {path}/report.html")
    check_installed("jinja2", "sklearn")
    runs = [collect.read_run(workdir) for workdir in workdirs]
    difference = None
    if len(runs) == 2:
        collect.check_comparable(*runs)
        difference = tables.differences(*workdirs)
    pairs = zip(runs, workdirs, strict=True)
    runs = [collect.with_test(run, workdir) for run, workdir in pairs]
    text = page(runs, difference)
    try:
        replace_text(path, text)
    except OSError as error:
        raise UserError(f"--out {explain_os_error(error)}") from error
    return len(text.encode())


def check_installed(*modules: str) -> None:
    """Raises UserError where one of the extra `report` is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"this page needs {module}; type pip install 'vireid-jax[report]'"
            )


def templates() -> Any:
    """Opens the pages' templates; whatever they are given is escaped."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("vireid_jax.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(runs: Sequence[Run], difference: Any = None) -> str:
    """Makes the page's text; `difference` is the table of `tables.differences`."""
    first, where = runs[0].own_results[0], tables.origin_words(runs)
    models = dict.fromkeys(run.about["config"]["model"]["name"] for run in runs)
    notes = {r["protocol"]: tables.test_words(r) for r in runs[0].own_results}
    counts = [
        run.test and histograms(run.test.features, run.test.identity, run.test.modality)
        for run in runs
    ]
    each = [one_run(runs, number, counts) for number in range(len(runs))]
    overall = (training_curves(runs), cmc_curves(runs, where, notes))
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            title=f"{first['dataset']}: {' and '.join(models)}",
            first=first,
            runs=runs,
            letters="AB",
            kinds=KINDS,
            written=datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
            stopped=[stopped for run in runs if (stopped := stopped_early(run))],
            results=tables.results(runs),
            trials=tables.trials(runs),
            difference=difference,
            configs=tables.config_differences(runs) if difference else None,
            costs=tables.costs(runs),
            origin=tables.origin(runs),
            overall=[one for one in overall if one],
            each=each,
        )
    )


def stopped_early(run: Run) -> str:
    """Says that a run is not at its end; "" where it is."""
    epoch, epochs = run.about["epoch"], run.about["config"]["schedule"]["epochs"]
    if epoch >= epochs:
        return ""
    return (
        f"The run in {run.name} was interrupted: this is epoch {epoch:g} of"
        f" {epochs:g}. To go on, type its training command again."
    )


def one_run(runs: Sequence[Run], number: int, counts: Sequence) -> dict[str, Any]:
    """Gathers the figures that are of one run alone; `counts` are all histograms."""
    run, alone = runs[number], len(runs) == 1
    suffix = "" if alone else f"-{'ab'[number]}"
    title = "" if alone else f", run {'AB'[number]}"
    found: dict[str, Any] = {"suffix": suffix, "title": title, "left_out": run.left_out}
    found |= {"figures": {}, "lists": [], "matrices": []}
    found |= {"activations": run.activations, "where": "", "not_shown": []}
    test = run.test
    if test is None:
        return found
    found["where"] = where = tables.origin_words([run])
    every = [one for found in counts for one in found or ()]
    figures = {"distances": distance_histograms(counts[number], every, where, suffix)}
    laid_out = maps(test.features, test.identity, test.modality)
    if laid_out is None:
        reason = "the test split has fewer than 8 images, or embeddings of one number"
        run.left_out.append(("Maps", reason))
    else:
        figures["maps"] = embedding_maps(laid_out, test, where, suffix)
    found["figures"] = figures
    shown = test.first_of_each_direction()
    names = {protocol.name for protocol, _ in shown}
    found["not_shown"] = [p.name for p in test.protocols if p.name not in names]
    for protocol, result in shown:
        matrix = camera_matrix(test, protocol)
        found["matrices"].append((tables.words(result), protocol, matrix))
        if test.image is None:
            continue
        try:
            lists = rank_lists(
                test, protocol, tuple(run.about["config"]["data"]["size"])
            )
        except (ValueError, OSError) as error:
            reason = f"an image cannot be read: {' '.join(str(error).split())}"
            run.left_out.append((f"Rank lists by {protocol.name}", reason))
        else:
            found["lists"].append((tables.words(result), protocol, lists))
    if test.image is None:
        run.left_out.append(("Rank lists and activation maps", "there are no images"))
    return found
