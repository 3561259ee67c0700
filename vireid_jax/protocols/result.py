"""From features to labelled numbers: no metric leaves here without saying what it is.

JSON holds fractions in [0, 1], tables show percent.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from rich import box
from rich.table import Table

from vireid_jax.protocols.protocol import Counts, Protocol, Rows
from vireid_jax.protocols.ranking import Metrics
from vireid_jax.protocols.reranking import KReciprocal
from vireid_jax.protocols.trials import rank_trials

SELECTIONS = ("last", "best")
# Labels as a table shows them: with a protocol's heading, or with a row's feature.
_OF_PROTOCOL = ("dataset", "direction", "mode", "shots", "trials", "draws")
_OF_PROTOCOL += ("queries", "valid queries", "gallery", "published counts")
_OF_FEATURE = ("flip", "reranking", "epoch", "selection")


@dataclass(frozen=True)
class Labels:
    """Say what a number measures; every printed or stored metric carries them all."""

    dataset: str
    protocol: str
    direction: str
    mode: str | None
    shots: int | None
    trials: tuple[int, ...]
    draws: str  # convention of the gallery draws, "none" where nothing is drawn
    queries: int  # images, the same in each trial, and so are the next two
    valid_queries: int
    gallery: int
    published_counts: str  # "agree", "differ: ..." or "none" (nothing is published)
    feature: str  # "global", or the name of a baseline
    flip: bool  # features of an image and its mirror are combined
    reranking: str  # "none", or the method with its settings
    epoch: float | None  # None: not from training
    selection: str | None  # "last", "best"; None: not a checkpoint
    baseline: bool  # a floor to compare with, not a trained model


@dataclass(frozen=True, eq=False)
class Result:
    """Hold labels and metrics: fractions, arithmetic means over trials."""

    labels: Labels
    cmc: Float64[np.ndarray, "ranks"]
    mAP: float  # noqa: N815
    mINP: float  # noqa: N815
    by_trial: tuple[Metrics, ...]

    def headline(self) -> dict[str, float]:
        """Return Rank-1, 5, 10, 20, mAP and mINP by their names, as fractions."""
        ranks = {f"Rank-{k}": float(self.cmc[k - 1]) for k in (1, 5, 10, 20)}
        return ranks | {"mAP": self.mAP, "mINP": self.mINP}

    def to_json(self) -> dict:
        """Return a plain dict for `json.dumps`: labels and `metrics`, as fractions."""
        labels = dataclasses.asdict(self.labels)
        return labels | {"trials": list(self.labels.trials), "metrics": self.headline()}


def evaluate(
    protocol: Protocol,
    records: Rows,
    features: Float[np.ndarray, "rows dim"],
    *,
    feature: str = "global",
    flip: bool = False,
    reranking: KReciprocal | None = None,
    epoch: float | None = None,
    selection: str | None = None,
    baseline: bool = False,
) -> Result:
    """Rank by cosine distance as the protocol says; mean over its trials.

    The trials share one computation of distances, in blocks.

    Args:
      protocol: from `get_protocols`.
      records: the split's rows.
      features: embeddings of all rows of the split, in its order; float64 is ranked as
        such, any other type in float32. They need not be normalised.
      reranking: re-ranks each trial, by its own queries and gallery; None: does not.
      feature, flip, epoch, selection, baseline: the labels that only the caller knows.

    Raises:
      ValueError: another number of features than rows, features that are not finite,
        an unknown selection, a query or gallery set without matches.
    """
    if selection not in (*SELECTIONS, None):
        raise ValueError(
            f"selection={selection!r}; legal are {', '.join(SELECTIONS)} or None."
        )
    if len(features) != len(records.identity):
        raise ValueError(
            f"{len(features)} features for {len(records.identity)} rows of "
            f"{protocol.dataset}; embed each row of the split exactly once, in order."
        )
    if reranking is None:
        by_trial = rank_trials(protocol, records, features, protocol.trials)
    else:
        by_trial = []
        for trial in protocol.trials:
            by_trial += rank_trials(
                protocol, records, features, [trial], reranking.rows
            )
    queries, valid_queries, gallery = _counts(protocol, by_trial)
    labels = Labels(
        dataset=protocol.dataset,
        protocol=protocol.name,
        direction=protocol.direction,
        mode=protocol.mode,
        shots=protocol.shots,
        trials=protocol.trials,
        draws=protocol.draws,
        queries=queries,
        valid_queries=valid_queries,
        gallery=gallery,
        published_counts=_compare(Counts(queries, gallery), protocol.published),
        feature=feature,
        flip=flip,
        reranking=reranking.label if reranking else "none",
        epoch=epoch,
        selection=selection,
        baseline=baseline,
    )
    return mean_result(labels, by_trial)


def mean_result(labels: Labels, by_trial: Sequence[Metrics]) -> Result:
    """Average the metrics of several rankings under one set of labels."""
    return Result(
        labels=labels,
        cmc=np.mean([metrics.cmc for metrics in by_trial], axis=0),
        mAP=float(np.mean([metrics.mAP for metrics in by_trial])),
        mINP=float(np.mean([metrics.mINP for metrics in by_trial])),
        by_trial=tuple(by_trial),
    )


def _counts(protocol, by_trial):
    counts = {(m.num_queries, m.valid_queries, m.num_gallery) for m in by_trial}
    if len(counts) > 1:
        raise ValueError(
            f"{protocol.name} has other numbers of (queries, valid queries, gallery) "
            f"in its trials: {sorted(counts)}; they must agree for a mean to be fair."
        )
    return counts.pop()


def _compare(found, published):
    if published in (found, None):
        return "agree" if published else "none"
    return f"differ: {published.queries} queries, {published.gallery} gallery images"


def results_table(results: Sequence[Result]) -> Table:
    """Build a rich table in percent: by protocol, models first, baselines under them.

    Labels that all rows share stand in the caption, the others beside the protocol or
    the feature they belong to. `results` holds at least one.
    """
    compared = [_shown(r.labels) for r in results if not r.labels.baseline]
    compared = compared or [_shown(r.labels) for r in results]
    shared = {
        n: v for n, v in compared[0].items() if all(c.get(n) == v for c in compared)
    }
    caption = [n for n in shared if n not in ("protocol", "feature")]
    table = Table(
        title="Metrics in percent",
        caption=" · ".join(f"{name} {shared[name]}" for name in caption),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("")
    for name in results[0].headline():
        table.add_column(name, justify="right", no_wrap=True)

    def own(labels, names, title):
        varying = (n for n in names if n in labels and n not in shared)
        return ", ".join([labels[title], *(f"{n} {labels[n]}" for n in varying)])

    groups = {}
    for result in results:
        key = (result.labels.dataset, result.labels.protocol)
        groups.setdefault(key, []).append(result)
    for group in groups.values():
        group = sorted(group, key=lambda result: result.labels.baseline)
        heading = own(_shown(group[0].labels), _OF_PROTOCOL, "protocol")
        table.add_row(heading, style="bold")
        for result in group:
            labels, baseline = _shown(result.labels), result.labels.baseline
            table.add_row(
                "  " + own(labels, () if baseline else _OF_FEATURE, "feature"),
                *(f"{100 * value:.2f}" for value in result.headline().values()),
                style="dim" if baseline else None,
            )
    return table


def _shown(labels):
    """Return each label as text, under the name a reader sees."""
    words = {True: "yes", False: "no", None: "-"}
    texts = {}
    for field in dataclasses.fields(labels):
        value = getattr(labels, field.name)
        if isinstance(value, tuple):
            value = ", ".join(map(str, value))
        elif isinstance(value, bool) or value is None:
            value = words[value]
        texts[field.name.replace("_", " ")] = str(value)
    del texts["baseline"]  # shown by place and style
    if labels.direction in labels.protocol:
        del texts["direction"]  # shown by the protocol's name
    return texts
