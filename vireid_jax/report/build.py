"""From runs to one page: what is shown, in which order, and what is left out."""

import datetime
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid_jax.report import collect, tables
from vireid_jax.report.collect import EvaluatedRun
from vireid_jax.report.distances import Histogram, camera_matrix, histograms
from vireid_jax.report.figures import (
    Table,
    cmc_curves,
    distance_histograms,
    embedding_maps,
    training_curves,
)
from vireid_jax.report.maps import maps
from vireid_jax.report.rank_lists import KINDS, rank_lists
from vireid_jax.run.errors import UserError, explain_os_error
from vireid_jax.run.files import check_parent, replace_text

if TYPE_CHECKING:
    import jinja2


def write(workdirs: Sequence[Path], path: Path) -> int:
    """Write the page of one run, or of two; return its size in bytes.

    Raise UserError for more than two runs, runs that are not of one table, a run that
    was not evaluated, or a missing folder.
    """
    if len(workdirs) > 2:
        raise UserError(
            f"--workdir is given {len(workdirs)} times; give one run, or two to compare"
        )
    if len({workdir.resolve() for workdir in workdirs}) < len(workdirs):
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
    text = page(list(map(collect.with_test, runs, workdirs)), difference)
    try:
        replace_text(path, text)
    except OSError as error:
        raise UserError(f"--out {explain_os_error(error)}") from error
    return len(text.encode())


def check_installed(*modules: str) -> None:
    """Raise UserError where a module of the extra `report` is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"this page needs {module}: pip install 'vireid-jax[report]'"
            )


def templates() -> "jinja2.Environment":
    """Open the pages' templates; all texts in them are escaped."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("vireid_jax.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(runs: Sequence[EvaluatedRun], difference: Table | None = None) -> str:
    """Return the page's text; `difference` is the table of `tables.differences`."""
    first, origin = runs[0].own_results[0], tables.origin_words(runs)
    models = dict.fromkeys(run.about["config"]["model"]["name"] for run in runs)
    notes = {r["protocol"]: tables.test_words(r) for r in runs[0].own_results}
    pairs = [
        histograms(test.features, test.rows.identity, test.rows.modality)
        if (test := run.test)
        else []
        for run in runs
    ]
    of_page = [histogram for of_run in pairs for histogram in of_run]
    each = [
        one_run(run, letter if len(runs) > 1 else "", of_run, of_page)
        for run, letter, of_run in zip(runs, "AB", pairs, strict=False)
    ]
    overall = (training_curves(runs), cmc_curves(runs, origin, notes))
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
            stopped=list(filter(None, map(stopped_early, runs))),
            results=tables.results(runs),
            trials=tables.trials(runs),
            difference=difference,
            configs=tables.config_differences(runs) if difference else None,
            costs=tables.costs(runs),
            origin=tables.origin(runs),
            overall=list(filter(None, overall)),
            each=each,
        )
    )


def stopped_early(run: EvaluatedRun) -> str:
    """Return a notice for a run that is not at its end, else ""."""
    epoch, epochs = run.about["epoch"], run.about["config"]["schedule"]["epochs"]
    if epoch >= epochs:
        return ""
    return (
        f"The run in {run.name} was interrupted: this is epoch {epoch:g} of"
        f" {epochs:g}. To resume it, run its training command again."
    )


def one_run(
    run: EvaluatedRun,
    letter: str,
    pairs: Sequence[Histogram],
    of_page: Sequence[Histogram],
) -> dict[str, Any]:
    """Return the figures of one run alone; `letter` is "" on a page of one run."""
    suffix, test = f"-{letter.lower()}" if letter else "", run.test
    content: dict[str, Any] = {
        "suffix": suffix,
        "title": f", run {letter}" if letter else "",
        "left_out": run.left_out,
        "figures": {},
        "lists": [],
        "matrices": [],
        "activations": run.activations,
        "where": tables.origin_words([run]),
        "not_shown": [],
    }
    if test is None:
        return content
    origin = content["where"]
    content["figures"]["distances"] = distance_histograms(
        pairs, of_page, origin, suffix
    )
    laid_out = maps(test.features, test.rows.identity, test.rows.modality)
    if laid_out is None:
        reason = "the test split has fewer than 8 images, or embeddings of one number"
        run.left_out.append(("Maps", reason))
    else:
        content["figures"]["maps"] = embedding_maps(laid_out, test, origin, suffix)
    shown = test.first_of_each_direction()
    names = {protocol.name for protocol, _ in shown}
    content["not_shown"] = [p.name for p in test.protocols if p.name not in names]
    for protocol, result in shown:
        words = tables.label_words(vars(result.labels))
        content["matrices"].append((words, protocol, camera_matrix(test, protocol)))
        size = tuple(run.about["config"]["data"]["size"])
        try:
            lists = rank_lists(test, protocol, result, size)
        except (UserError, OSError) as error:
            reason = f"an image cannot be read: {' '.join(str(error).split())}"
            run.left_out.append((f"Rank lists by {protocol.name}", reason))
        else:
            content["lists"].append((words, protocol, lists))
    return content
