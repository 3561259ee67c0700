"""From runs to one page: what is shown, in which order, and what is left out."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid_jax.report import collect, figures, tables
from vireid_jax.report.collect import EvaluatedRun
from vireid_jax.report.distances import Histogram, camera_matrix, histograms, maps
from vireid_jax.report.rank_lists import KINDS, rank_lists
from vireid_jax.report.tables import Table
from vireid_jax.run.errors import UserError, check_installed
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
    check_installed("this page", "report", "jinja2", "sklearn")
    runs = [collect.read_run(workdir) for workdir in workdirs]
    difference = None
    if len(runs) == 2:
        collect.check_comparable(*runs)
        difference = tables.differences(*workdirs)
    text = page(list(map(collect.with_test, runs, workdirs)), difference)
    replace_text(path, text)
    return len(text.encode())


def templates() -> "jinja2.Environment":
    """Open the pages' templates; all texts in them are escaped."""
    import jinja2

    loader, undefined = jinja2.PackageLoader(__package__, ""), jinja2.StrictUndefined
    return jinja2.Environment(
        loader=loader, undefined=undefined, autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def page(runs: Sequence[EvaluatedRun], difference: Table | None = None) -> str:
    """Return the page's text; `difference` is the table of `tables.differences`."""
    first = runs[0].own_results[0]
    models = dict.fromkeys(run.about["config"]["model"]["name"] for run in runs)
    pairs = [histograms(run.test) if run.test else [] for run in runs]
    of_page = [histogram for of_run in pairs for histogram in of_run]
    letters = "AB" if len(runs) > 1 else [""]
    overall = (figures.training_curves(runs), figures.cmc_curves(runs))
    template = templates().get_template("page.html.j2")
    return template.render(
        title=f"{first['dataset']}: {' and '.join(models)}",
        first=first,
        runs=runs,
        letters=letters,
        kinds=KINDS,
        written=datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
        percent=tables.percent,
        results=tables.results(runs),
        trials=tables.trials(runs),
        difference=difference,
        configs=tables.config_differences(runs) if difference else None,
        costs=tables.side_by_side("Cost", runs, [run.costs for run in runs]),
        origin=tables.origin(runs),
        overall=list(filter(None, overall)),
        each=[one_run(*of, of_page) for of in zip(runs, letters, pairs, strict=True)],
    )


def one_run(
    run: EvaluatedRun, letter: str, pairs: list[Histogram], of_page: list[Histogram]
) -> dict[str, Any]:
    """Return the figures of one run alone; `letter` is "" on a page of one run."""
    suffix, test = f"-{letter.lower()}" if letter else "", run.test
    origin = tables.origin_words([run])
    title = f", run {letter}" if letter else ""
    content: dict[str, Any] = {"suffix": suffix, "title": title, "where": origin}
    content |= {"left_out": run.left_out, "activations": run.activations}
    content |= {"figures": {}, "lists": [], "matrices": [], "not_shown": []}
    if test is None:
        return content
    distances = figures.distance_histograms(pairs, of_page, origin, suffix)
    content["figures"]["distances"] = distances
    if (laid_out := maps(test)) is None:
        reason = "the test split has fewer than 8 images, or embeddings of one number"
        run.left_out.append(("Maps", reason))
    else:
        drawn = figures.embedding_maps(laid_out, test, origin, suffix)
        content["figures"]["maps"] = drawn
    shown = test.first_of_each_direction()
    size = tuple(run.about["config"]["data"]["size"])
    names = {protocol.name for protocol, _ in shown}
    content["not_shown"] = [p.name for p in test.protocols if p.name not in names]
    for protocol, result in shown:
        words = tables.label_words(vars(result.labels))
        content["matrices"].append((words, protocol, camera_matrix(test, protocol)))
        try:
            lists = rank_lists(test, protocol, result, size)
        except (UserError, OSError) as error:
            reason = f"an image cannot be read: {' '.join(str(error).split())}"
            run.left_out.append((f"Rank lists by {protocol.name}", reason))
        else:
            content["lists"].append((words, protocol, lists))
    return content
