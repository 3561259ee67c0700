"""Results as tables, in percent: the means, their uncertainty, each trial."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from vireid_jax.protocols.result import Labels, Result
from vireid_jax.protocols.uncertainty import FEW
from vireid_jax.run.console import plain_table

# Labels as a table shows them: with a protocol's heading, or with a row's feature.
_OF_PROTOCOL = ("dataset", "direction", "mode", "shots", "trials", "draws")
_OF_PROTOCOL += ("queries", "valid queries", "gallery", "published counts")
_OF_FEATURE = ("flip", "reranking", "epoch", "selection")


def print_results(results: Sequence[Result], console: Console) -> None:
    """Print the metrics of one model at least, their uncertainty, and each trial."""
    console.print(results_table(results))
    models = [result for result in results if not result.labels.baseline]
    for labels in (result.labels for result in models):
        if labels.published_counts.startswith("differ"):
            console.print(
                f"{labels.protocol}: this split has {labels.queries} queries and"
                f" {labels.gallery} gallery images, the published counts"
                f" {labels.published_counts}. These metrics compare with no published"
                " number."
            )
    console.print(uncertainty_table(models))
    if any(len(result.by_trial) > 1 for result in models):
        console.print(trials_table(models))


def results_table(results: Sequence[Result]) -> Table:
    """Build a rich table in percent: by protocol, models first, then baselines.

    Labels that all rows share are in the caption, the others beside the protocol or
    the feature that they describe. `results` holds at least one.
    """
    shown = [_shown(r.labels) for r in results if not r.labels.baseline]
    shown = shown or [_shown(r.labels) for r in results]
    shared = {n: v for n, v in shown[0].items() if all(s.get(n) == v for s in shown)}
    table = plain_table("Metrics in percent", *results[0].headline(), no_wrap=True)
    in_caption = [name for name in shared if name not in ("protocol", "feature")]
    table.caption = " · ".join(f"{name} {shared[name]}" for name in in_caption)

    def describe(labels, title, names):
        varying = (n for n in names if n in labels and n not in shared)
        return ", ".join([labels[title], *(f"{n} {labels[n]}" for n in varying)])

    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        key = (result.labels.dataset, result.labels.protocol)
        groups.setdefault(key, []).append(result)
    for group in groups.values():
        group = sorted(group, key=lambda result: result.labels.baseline)
        heading = describe(_shown(group[0].labels), "protocol", _OF_PROTOCOL)
        table.add_row(heading, style="bold")
        for result in group:
            names = () if result.labels.baseline else _OF_FEATURE
            table.add_row(
                "  " + describe(_shown(result.labels), "feature", names),
                *(f"{100 * value:.2f}" for value in result.headline().values()),
                style="dim" if result.labels.baseline else None,
            )
    return table


def _shown(labels: Labels) -> dict[str, str]:
    """Return each label as text, under the name a reader sees."""
    texts = {}
    for name, value in vars(labels).items():
        if isinstance(value, tuple):
            value = ", ".join(map(str, value))
        elif isinstance(value, bool) or value is None:
            value = {True: "yes", False: "no", None: "-"}[value]
        texts[name.replace("_", " ")] = str(value)
    del texts["baseline"]  # shown by its row and style
    if labels.direction in labels.protocol:
        del texts["direction"]  # shown by the protocol's name
    return texts


def uncertainty_table(results: Sequence[Result]) -> Table:
    """Build a table of models: means, deviations over trials, 95 % intervals."""
    names = ("Rank-1", "mAP", "mINP")
    table = plain_table("Means, and 95 % intervals over identities", *names)
    for result in results:
        means, deviation = result.headline(), result.deviation()
        cells = []
        for name, (low, high) in result.intervals().items():
            spread = f" ± {100 * deviation[name]:.2f}" if deviation else ""
            interval = f"{100 * low:.1f} to {100 * high:.1f}"
            cells.append(f"{100 * means[name]:.2f}{spread}\n{interval}")
        table.add_row(result.labels.protocol, *cells)
    table.caption = "under each mean, its interval"
    if any(result.deviation() for result in results):
        table.caption += "; after ±, the standard deviation over trials"
    people = min(len(set(r.queries.identity)) for r in results if r.queries)
    if people < FEW:
        table.caption += f"\nof {people} identities only: the true ones are wider"
    return table


def trials_table(results: Sequence[Result]) -> Table:
    """Build a table of models: every trial of the protocols that have several."""
    table = plain_table("Each trial", *results[0].headline())
    for result in results:
        labels, headlines = result.labels, result.trial_headlines()
        if len(headlines) > 1:
            table.add_row(labels.protocol, style="bold")
            for trial, metrics in zip(labels.trials, headlines, strict=True):
                values = (f"{100 * value:.2f}" for value in metrics.values())
                table.add_row(f"  {trial}", *values)
    return table
