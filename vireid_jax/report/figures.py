"""The figures of a report: each a few panels, a caption, and its numbers as a table."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vireid_jax.modality import MODALITIES
from vireid_jax.protocols import Result
from vireid_jax.protocols.ranking import cosine_distances
from vireid_jax.protocols.uncertainty import identity_interval
from vireid_jax.report.collect import EmbeddedSplit, EvaluatedRun
from vireid_jax.report.distances import BINS, MOST, PERPLEXITY, Histogram, Maps
from vireid_jax.report.svg import Axes
from vireid_jax.report.tables import Table, origin_words, percent, test_words

RANKS = np.arange(1, 21)
_SHOWN_RANKS = (1, 5, 10, 20)
MARKERS = dict(zip(MODALITIES, ("circle", "triangle"), strict=True))


class Key(NamedTuple):
    """One line of a legend: a style, and what it means."""

    style: str
    shape: str  # "line", "dashed", "band", "circle", "triangle"
    words: str


class Panel(NamedTuple):
    """One pair of axes under a title."""

    title: str
    svg: str
    note: str = ""  # the test that it is of


class Figure(NamedTuple):
    """What the page shows as one figure."""

    id: str
    title: str
    caption: str
    panels: list[Panel]
    keys: list[Key]
    table: Table


def _keys_of(runs: Sequence[EvaluatedRun]) -> list[Key]:
    """Return the legend of two runs; one run needs none."""
    if len(runs) == 1:
        return []
    first, second = (run.name for run in runs)
    return [Key("c0", "line", f"A: {first}"), Key("c1", "dashed", f"B: {second}")]


_CURVES = (
    ("Loss", "train", "loss", 1),
    ("Accuracy on training batches, %", "train", "accuracy", 100),
    ("mAP of held-out training identities, %", "validation", "validation_mAP", 100),
    ("Norm of the gradient", "train", "gradient_norm", 1),
    ("Learning rate", "train", "learning_rate", 1),
    ("Images a second", "train", "images_per_second", 1),
)


def training_curves(runs: Sequence[EvaluatedRun]) -> Figure | None:
    """Draw what was logged in training over epochs, two runs on the same axes."""
    panels, rows = [], []
    for title, kind, name, factor in _CURVES:
        curves = [
            [(row["epoch"], factor * row[name]) for row in run.metrics
             if row["kind"] == kind and name in row]
            for run in runs
        ]  # fmt: skip
        if not any(curves):
            continue
        last, highest = np.max([point for curve in curves for point in curve], axis=0)
        axes = Axes((0, last), (0, 1.05 * highest), "epoch", "")
        for number, curve in enumerate(curves):
            if not curve:
                continue
            xs, ys = np.transpose(curve)
            if len(xs) == 1:
                axes.points(xs, ys, f"c{number}", "circle")
            else:
                axes.line(xs, ys, f"c{number}")
            numbers = [f"{y:.4g}" for y in (ys[0], ys[-1], min(ys), max(ys))]
            letter = f", {'AB'[number]}" if len(runs) > 1 else ""
            rows.append([f"{title}{letter}", *numbers])
        panels.append(Panel(title, axes.svg(f"{title} over epochs")))
    if not panels:
        return None
    caption = (
        "What the run logged, each point the mean since the point before it"
        " (metrics.jsonl). Held-out identities are of the training split; the test"
        " split is not used in training."
    )
    if len(runs) > 1:
        caption += " Losses made of other terms cannot be compared."
    head = ["", "first", "last", "lowest", "highest"]
    table = Table("Training curves in numbers", head, rows)
    keys = _keys_of(runs)
    return Figure("training", "Training curves", caption, panels, keys, table)


def cmc_curves(runs: Sequence[EvaluatedRun]) -> Figure | None:
    """Draw the CMC by each protocol with its band."""
    tested = [run.test for run in runs if run.test]
    if not tested:
        return None
    panels, rows = [], []
    for index, protocol in enumerate(tested[0].protocols):
        axes = Axes((1, 20), (0, 100), "rank", "match found, %", (1, 5, 10, 15, 20))
        for number, run in enumerate(runs):
            if not run.test:
                continue
            cmc, style = run.test.results[index].cmc, f"c{number}"
            low, high = cmc_band(run.test.results[index])
            axes.band(RANKS, 100 * low, 100 * high, style)
            axes.line(RANKS, 100 * cmc, style)
            cells = [
                f"{percent(cmc[k])} ({percent(low[k])} to {percent(high[k])})"
                for k in np.subtract(_SHOWN_RANKS, 1)
            ]
            letter = f", {'AB'[number]}" if len(runs) > 1 else ""
            rows.append([f"{protocol.name}{letter}", *cells])
        drawn = axes.svg(f"CMC by {protocol.name}, ranks 1 to 20")
        words = test_words(vars(tested[0].results[index].labels))
        panels.append(Panel(protocol.name, drawn, words))
    band = (
        "from the lowest to the highest of the trials"
        if any(len(result.by_trial) > 1 for result in tested[0].results)
        else "a 95 % interval at each rank, by bootstrap over identities (one trial)"
    )
    caption = (
        "Share of queries with a match among the first k of the gallery; of SYSU-MM01"
        " and LLCM k counts identities. The line is the mean over trials, the band"
        f" {band}. {origin_words(runs)}"
    )
    keys = [*(_keys_of(runs) or [Key("c0", "line", "mean")]), Key("c0", "band", "band")]
    head = ["", *(f"Rank-{k}, %" for k in _SHOWN_RANKS)]
    table = Table("CMC in numbers; in brackets the band", head, rows)
    return Figure("cmc", "Cumulative matching", caption, panels, keys, table)


def cmc_band(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the CMC's band at ranks 1 to 20: see the caption."""
    if len(result.by_trial) > 1:
        by_trial = np.stack([metrics.cmc for metrics in result.by_trial])
        return by_trial.min(0), by_trial.max(0)
    assert result.queries is not None  # only averages of noise have none
    first_hit, identity = result.by_trial[0].first_hit, result.queries.identity
    valid = np.isfinite(first_hit)
    hits = (np.where(valid, first_hit <= k, np.nan) for k in RANKS)
    low, high = np.array([identity_interval(hit, identity) for hit in hits]).T
    return low, high


def distance_histograms(
    histograms: list[Histogram], of_page: list[Histogram], origin: str, suffix: str = ""
) -> Figure:
    """Draw within- and between-identity distances by pair of modalities.

    All axes have one scale, that of all histograms of the page.
    """
    centres = np.arange(BINS) * 2 / BINS + 1 / BINS
    filled = np.flatnonzero(sum(h.within + h.between for h in of_page))
    shown = slice(filled[0], filled[-1] + 1)
    kinds = {"between": "c1", "within": "c0"}
    top = 1.08 * max(h.percent(kind).max() for h in of_page for kind in kinds)
    panels, rows = [], []
    for one in histograms:
        ends = (2 * shown.start / BINS, 2 * shown.stop / BINS)
        axes = Axes(ends, (0, top), "cosine distance", "pairs, %")
        title = " and ".join(one.modalities)
        for kind, style in kinds.items():
            xs, ys = centres[shown], one.percent(kind)[shown]
            axes.band(xs, 0 * xs, ys, style)
            axes.line(xs, ys, style)
            quantiles = [f"{one.quantile(kind, q):.2f}" for q in (0.05, 0.5, 0.95)]
            pairs = f"{getattr(one, kind).sum():,.0f}"
            rows.append([f"{title}, {kind}", pairs, *quantiles])
        panels.append(Panel(title, axes.svg(f"Cosine distances, {title}")))
    caption = (
        "Cosine distances of all pairs of test images, each kind of pair scaled to"
        " 100 % by itself. The further apart the two hills, the easier the ranking; a"
        " gap between modalities shows as visible-infrared pairs of one identity"
        f" further right than those of one modality. {origin}"
    )
    within = Key("c0", "line", "within an identity")
    keys = [within, Key("c1", "dashed", "between identities")]
    head = ["", "pairs", "5 %", "median", "95 %"]
    table = Table("Distances in numbers, to half a bin of 0.02", head, rows)
    return Figure(f"distances{suffix}", "Distances", caption, panels, keys, table)


def embedding_maps(
    maps: Maps, test: EmbeddedSplit, origin: str, suffix: str = ""
) -> Figure:
    """Draw PCA and t-SNE; colours show some identities, markers modalities."""
    identity, modality = test.rows.identity[maps.rows], test.rows.modality[maps.rows]
    one, other = (f"{100 * x:.0f} % of variance" for x in maps.explained)
    styles = {person: f"c{number}" for number, person in enumerate(maps.coloured)}
    colours = np.array([styles.get(person, "grey") for person in identity])
    panels = []
    for title, points, labels in (
        ("PCA", maps.pca, (f"axis 1, {one}", f"axis 2, {other}")),
        ("t-SNE", maps.tsne, (None, None)),
    ):
        points = np.asarray(points, np.float64)
        margin = 0.04 * np.ptp(points, axis=0)
        (left, low), (right, high) = points.min(0) - margin, points.max(0) + margin
        axes = Axes((left, right), (low, high), *labels)
        for style in ("grey", *styles.values()):
            for number, name in enumerate(MODALITIES):
                xs, ys = points[(colours == style) & (modality == number)].T
                axes.points(xs, ys, style, MARKERS[name])
        drawn = axes.svg(f"{title} map of {len(maps.rows)} embeddings")
        panels.append(Panel(title, drawn))
    images, identities = len(test.rows.identity), len(set(test.rows.identity))
    sample = f"All {images:,} test images."
    if len(maps.rows) < images:
        part = f"{len(maps.rows):,} of {images:,} images, all those of"
        people = f"{len(set(identity))} of {identities} identities"
        sample = f"A sample: {part} {people} (at most {MOST:,} images)."
    caption = (
        f"{sample} Colours show {len(styles)} identities drawn at random, grey is"
        " everyone else; circles are visible, triangles infrared images. PCA and t-SNE"
        f" (perplexity {PERPLEXITY} or less, started from PCA) are of scikit-learn,"
        " t-SNE after PCA to 50 dimensions; distances between t-SNE's groups mean"
        f" nothing. {origin}"
    )
    keys = [Key("grey", MARKERS[name], name) for name in MODALITIES]
    keys += [Key(style, "circle", f"id {person}") for person, style in styles.items()]
    features, rows = test.features[maps.rows], []
    for person in maps.coloured:
        own = np.flatnonzero(identity == person)
        distances = cosine_distances(features[own], features)
        distances[np.arange(len(own)), own] = np.inf
        same = int((identity[distances.argmin(1)] == person).sum())
        counts = np.bincount(modality[own], minlength=len(MODALITIES))
        nearest = f"same person: {same} of {len(own)}"
        rows.append([f"id {person}", *map(str, counts), nearest])
    table = Table(
        "The coloured identities: of how many images the nearest other image, by"
        " cosine distance among those on the map, shows the same person",
        ["identity", "visible images", "infrared images", "nearest other image"],
        rows,
    )
    return Figure(f"maps{suffix}", "Maps of embeddings", caption, panels, keys, table)
