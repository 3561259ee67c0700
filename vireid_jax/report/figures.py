"""The figures of a report: each a few panels, a caption, and its numbers as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vireid_jax.modality import MODALITIES
from vireid_jax.protocols.uncertainty import identity_interval
from vireid_jax.report.distances import BINS, Histogram
from vireid_jax.report.maps import MOST, PERPLEXITY, Maps
from vireid_jax.report.svg import DASHES, Axes

RANKS = np.arange(1, 21)
_SHOWN_RANKS = (1, 5, 10, 20)
_TICKS = (1, 5, 10, 15, 20)
MARKERS = dict(zip(MODALITIES, ("circle", "triangle"), strict=True))


@dataclass(frozen=True)
class Key:
    """One line of a legend: what is drawn so, and what it means."""

    style: str
    shape: str  # "line", "dashed", "band", "circle", "triangle"
    words: str


@dataclass(frozen=True)
class Panel:
    """One pair of axes under a title; `note` says what it is of."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of texts; the first column heads its row."""

    caption: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Figure:
    """What the page shows as one figure."""

    id: str
    title: str
    caption: str
    panels: list[Panel]
    keys: list[Key] = field(default_factory=list)
    table: Table | None = None


def percent(value: float) -> str:
    """Writes a fraction in percent, as all tables do."""
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


# --- Training -------------------------------------------------------------------------

_CURVES = (
    ("Loss", "train", "loss", 1),
    ("Accuracy on training batches, %", "train", "accuracy", 100),
    ("mAP of held-out training identities, %", "validation", "validation_mAP", 100),
    ("Norm of the gradient", "train", "gradient_norm", 1),
    ("Learning rate", "train", "learning_rate", 1),
    ("Images a second", "train", "images_per_second", 1),
)


def training_curves(runs: Sequence[Any]) -> Figure | None:
    """Draws what was logged in training over epochs, runs over each other."""
    panels, rows = [], []
    for title, kind, name, factor in _CURVES:
        curves = []
        for run in runs:
            kept = [r for r in run.metrics if r["kind"] == kind and name in r]
            curves.append(
                ([r["epoch"] for r in kept], [factor * r[name] for r in kept])
            )
        if not any(xs for xs, _ in curves):
            continue
        axes = _axes_around(curves)
        for number, (xs, ys) in enumerate(curves):
            if len(xs) == 1:
                axes.points(xs, ys, f"c{number}", "circle")
            elif xs:
                axes.line(xs, ys, f"c{number}", DASHES[number])
        panels.append(Panel(title, axes.svg(f"{title} over epochs")))
        for run, (_, ys) in zip(runs, curves, strict=True):
            if ys:
                numbers = [f"{x:.4g}" for x in (ys[0], ys[-1], min(ys), max(ys))]
                rows.append([f"{title}{_of(run, runs)}", *numbers])
    if not panels:
        return None
    caption = (
        "What the run logged, each point the mean since the point before it"
        " (metrics.jsonl). Held-out identities are of the training split; the test"
        " split is not looked at in training."
    )
    if len(runs) > 1:
        caption += " Losses made of other terms cannot be compared."
    head = ["", "first", "last", "lowest", "highest"]
    return Figure(
        "training",
        "Training curves",
        caption,
        panels,
        _run_keys(runs),
        Table("Training curves in numbers", head, rows),
    )


def _axes_around(curves) -> Axes:
    xs = [x for found, _ in curves for x in found]
    ys = [y for _, found in curves for y in found]
    return Axes((0, max(xs)), (0, 1.05 * max(ys)), "epoch", "")


def _of(run: Any, runs: Sequence[Any]) -> str:
    return f", {'AB'[list(runs).index(run)]}" if len(runs) > 1 else ""


def _run_keys(runs: Sequence[Any]) -> list[Key]:
    if len(runs) == 1:
        return []
    shapes = ("line", "dashed")
    return [Key(f"c{i}", shapes[i], f"{'AB'[i]}: {r.name}") for i, r in enumerate(runs)]


# --- CMC ------------------------------------------------------------------------------


def cmc_curves(
    runs: Sequence[Any], where: str, notes: Mapping[str, str]
) -> Figure | None:
    """Draws the CMC by each protocol, with a band; a note tells of each its test."""
    tested = [run for run in runs if run.test]
    if not tested:
        return None
    panels, rows = [], []
    for number, result in enumerate(tested[0].test.results):
        name = result.labels.protocol
        axes = Axes((1, 20), (0, 100), "rank", "match found, %", _TICKS)
        for place, run in enumerate(runs):
            if not run.test:
                continue
            one = run.test.results[number]
            low, high = cmc_band(one)
            axes.band(RANKS.tolist(), _hundred(low), _hundred(high), f"c{place}")
            axes.line(RANKS.tolist(), _hundred(one.cmc), f"c{place}", DASHES[place])
            band = [
                f"{percent(one.cmc[k - 1])} ({percent(low[k - 1])} to "
                f"{percent(high[k - 1])})"
                for k in _SHOWN_RANKS
            ]
            rows.append([f"{name}{_of(run, runs)}", *band])
        drawn = axes.svg(f"CMC by {name}, ranks 1 to 20")
        panels.append(Panel(name, drawn, notes[name]))
    many = any(len(r.by_trial) > 1 for r in tested[0].test.results)
    what = (
        "from the lowest to the highest of the trials"
        if many
        else "a 95 % interval at each rank, by bootstrap over identities (one trial)"
    )
    caption = (
        "Share of queries with a match among the first k of the gallery; of SYSU-MM01"
        " and LLCM k counts identities. The line is the mean over trials, the band"
        f" {what}. {where}"
    )
    keys = _run_keys(runs) or [Key("c0", "line", "mean")]
    keys.append(Key("c0", "band", "band"))
    head = ["", *(f"Rank-{k}, %" for k in _SHOWN_RANKS)]
    table = Table("CMC in numbers; in brackets the band", head, rows)
    return Figure("cmc", "Cumulative matching", caption, panels, keys, table)


def cmc_band(result: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of the CMC's band at ranks 1 to 20: see the caption."""
    if len(result.by_trial) > 1:
        every = np.stack([metrics.cmc for metrics in result.by_trial])
        return every.min(0), every.max(0)
    first_hit = result.by_trial[0].first_hit
    valid = np.isfinite(first_hit)
    identity = result.queries.identity
    ends = [
        identity_interval(np.where(valid, first_hit <= k, np.nan), identity)
        for k in RANKS
    ]
    low, high = np.array(ends).T
    return low, high


def _hundred(values) -> list[float]:
    return [100 * float(x) for x in values]


# --- Distances ------------------------------------------------------------------------


def distance_histograms(
    found: Sequence[Histogram],
    every: Sequence[Histogram],
    where: str,
    suffix: str = "",
) -> Figure:
    """Draws within- and between-identity distances by pair of modalities.

    All axes have one scale, that of `every`: those of the page, `found` among them.
    """
    edges = np.arange(BINS) * 2 / BINS + 1 / BINS
    filled = np.flatnonzero(sum(h.within + h.between for h in every))
    low, high = 2 * filled[0] / BINS, 2 * (filled[-1] + 1) / BINS
    kinds = ("between", "within")
    top = 1.08 * max(h.percent(kind).max() for h in every for kind in kinds)
    panels, rows = [], []
    for one in found:
        axes = Axes((low, high), (0, top), "cosine distance", "pairs, %")
        for kind, style in zip(kinds, ("c1", "c0"), strict=True):
            kept = slice(filled[0], filled[-1] + 1)
            xs, ys = edges[kept].tolist(), one.percent(kind)[kept].tolist()
            axes.band(xs, [0.0] * len(xs), ys, style)
            axes.line(xs, ys, style, DASHES[kind == "between"])
            quantiles = [f"{one.quantile(kind, q):.2f}" for q in (0.05, 0.5, 0.95)]
            title = f"{one.modalities[0]} and {one.modalities[1]}, {kind}"
            rows.append([title, f"{getattr(one, kind).sum():,.0f}", *quantiles])
        title = f"{one.modalities[0]} and {one.modalities[1]}"
        panels.append(Panel(title, axes.svg(f"Cosine distances, {title}")))
    caption = (
        "Cosine distances of all pairs of test images, each kind of pair scaled to"
        " 100 % by itself. The further apart the two hills, the easier the ranking; a"
        " gap between modalities shows as visible-infrared pairs of one identity"
        f" further right than those of one modality. {where}"
    )
    keys = [
        Key("c0", "line", "within an identity"),
        Key("c1", "dashed", "between identities"),
    ]
    head = ["", "pairs", "5 %", "median", "95 %"]
    table = Table("Distances in numbers, to half a bin of 0.02", head, rows)
    return Figure(f"distances{suffix}", "Distances", caption, panels, keys, table)


# --- Maps -----------------------------------------------------------------------------


def embedding_maps(found: Maps, test: Any, where: str, suffix: str = "") -> Figure:
    """Draws PCA and t-SNE; colours tell some identities, markers modalities."""
    identity, modality = test.identity[found.rows], test.modality[found.rows]
    one, other = (f"{100 * x:.0f} % of variance" for x in found.explained)
    panels = []
    for title, places, labels in (
        ("PCA", found.pca, (f"axis 1, {one}", f"axis 2, {other}")),
        ("t-SNE", found.tsne, (None, None)),
    ):
        x, y = np.asarray(places, np.float64).T
        ends = [
            (v.min() - 0.04 * np.ptp(v), v.max() + 0.04 * np.ptp(v)) for v in (x, y)
        ]
        axes = Axes(*ends, *labels)
        for person in (None, *found.coloured):
            mine = identity == person
            if person is None:
                mine = ~np.isin(identity, found.coloured)
            style = "grey" if person is None else f"c{found.coloured.index(person)}"
            for number, name in enumerate(MODALITIES):
                kept = mine & (modality == number)
                axes.points(x[kept].tolist(), y[kept].tolist(), style, MARKERS[name])
        label = f"{title} map of {len(found.rows)} embeddings"
        panels.append(Panel(title, axes.svg(label)))
    people, everyone = len(set(identity)), len(set(test.identity))
    some = (
        f"A sample: {len(found.rows):,} of {len(test.identity):,} images, all those of"
        f" {people} of {everyone} identities (at most {MOST:,} images)."
    )
    if len(found.rows) == len(test.identity):
        some = f"All {len(found.rows):,} test images."
    caption = (
        f"{some} Colours tell {len(found.coloured)} identities drawn at random, grey is"
        " everyone else; circles are visible, triangles infrared images. PCA and t-SNE"
        f" (perplexity {PERPLEXITY} or less, started from PCA) are of scikit-learn,"
        " t-SNE after PCA to 50 dimensions; distances between t-SNE's groups mean"
        f" nothing. {where}"
    )
    keys = [Key("grey", MARKERS[name], name) for name in MODALITIES]
    keys += [Key(f"c{i}", "circle", f"id {p}") for i, p in enumerate(found.coloured)]
    rows = [_closeness(p, found, test) for p in found.coloured]
    head = ["identity", "visible images", "infrared images", "nearest other image"]
    table = Table(
        "The coloured identities: of how many images the nearest other image, by"
        " cosine distance among those on the map, shows the same person",
        head,
        rows,
    )
    return Figure(f"maps{suffix}", "Maps of embeddings", caption, panels, keys, table)


def _closeness(person: int, found: Maps, test: Any) -> list[str]:
    from vireid_jax.protocols.ranking import cosine_distances

    rows = found.rows
    own = np.flatnonzero(test.identity[rows] == person)
    distances = cosine_distances(test.features[rows[own]], test.features[rows])
    distances[np.arange(len(own)), own] = np.inf
    same = test.identity[rows[distances.argmin(1)]] == person
    kinds = test.modality[rows[own]]
    counts = (str(int((kinds == m).sum())) for m in range(len(MODALITIES)))
    return [f"id {person}", *counts, f"same person: {int(same.sum())} of {len(own)}"]
