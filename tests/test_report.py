"""The report's numbers and its page."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from report_runs import FIGURES, SYSU, about_of, image_of, run_of, split_of
from splits import embed, real_size

from vireid_jax.protocols import evaluate, get_protocols
from vireid_jax.protocols.ranking import cosine_distances
from vireid_jax.report.activations import activation_maps
from vireid_jax.report.build import page
from vireid_jax.report.collect import EmbeddedSplit
from vireid_jax.report.distances import (
    BINS,
    MOST,
    camera_matrix,
    chosen_rows,
    histograms,
    maps,
)
from vireid_jax.report.figures import cmc_band, distance_histograms
from vireid_jax.report.rank_lists import NEAREST, chosen_queries, rank_lists
from vireid_jax.report.svg import Axes, number, ticks
from vireid_jax.report.tables import Table
from vireid_jax.run.errors import UserError


class TestNumbers:
    def test_histograms_count_each_pair_once(self):
        split = split_of(noise=1.0)
        distances = cosine_distances(split.features, split.features)
        same = split.rows.identity[:, None] == split.rows.identity
        upper = np.triu(np.ones_like(same), 1)
        counted = histograms(split)
        assert [h.modalities for h in counted] == [
            ("visible", "visible"),
            ("infrared", "infrared"),
            ("visible", "infrared"),
        ]
        for one, (a, b) in zip(counted, ((0, 0), (1, 1), (0, 1)), strict=True):
            pairs = (split.rows.modality[:, None] == a) & (split.rows.modality == b)
            pairs &= upper | (a != b)
            for kind, member in (("within", same), ("between", ~same)):
                counts = getattr(one, kind)
                chosen = distances[pairs & member]
                assert counts.sum() == len(chosen)
                expected, _ = np.histogram(chosen, BINS, (0, 2))
                assert abs(np.cumsum(counts) - np.cumsum(expected)).max() <= 1
                median = one.quantile(kind, 0.5)
                assert median == pytest.approx(np.median(chosen), abs=2.5 / BINS)

    def test_one_pair_of_cameras_is_the_protocol_itself(self):
        split = split_of(noise=1.0)
        for protocol, result in split.first_of_each_direction():
            matrix = camera_matrix(split, protocol)
            assert matrix.rank_1.shape == (1, 1)
            assert matrix.rank_1[0, 0] == pytest.approx(result.cmc[0])
            assert matrix.mAP[0, 0] == pytest.approx(result.mAP)
            assert matrix.queries[0, 0] == result.labels.valid_queries

    def test_cameras_are_ranked_pair_by_pair(self):
        split = split_of(SYSU, "sysu_mm01")
        ((protocol, _),) = split.first_of_each_direction()
        matrix = camera_matrix(split, protocol)
        assert matrix.query_cameras == [3, 6]
        assert matrix.gallery_cameras == [1, 2, 4, 5]
        assert np.isnan(matrix.rank_1[0, 1])  # the protocol ignores camera 2 for 3
        kept = np.delete(matrix.rank_1.ravel(), 1)
        assert np.isfinite(kept).all()
        assert (kept > 0.2).all()

    def test_the_band_is_over_trials_or_over_identities(self):
        many = split_of(SYSU, "sysu_mm01").results[0]
        low, high = cmc_band(many)
        every = np.stack([m.cmc for m in many.by_trial])
        assert (low == every.min(0)).all()
        assert (high == every.max(0)).all()
        one = split_of(noise=1.0).results[0]
        low, high = cmc_band(one)
        ends = one.intervals()["Rank-1"]
        assert (low[0], high[0]) == pytest.approx(ends)
        assert ((low <= one.cmc) & (one.cmc <= high)).all()

    def test_queries_are_the_best_and_the_worst_of_different_people(self):
        ap = np.array([0.5, 1.0, 0.9, np.nan, 0.1, 0.2, 1.0])
        identity = np.array([1, 2, 2, 4, 5, 5, 7])
        chosen = chosen_queries(ap, identity)
        assert chosen["best"] == [1, 6, 0]
        assert chosen["worst"] == [4, 0, 2]
        assert len({identity[i] for i in chosen["random"]}) == 3
        assert 3 not in chosen["random"]

    def test_rank_lists_show_what_the_protocol_ranks(self):
        split = split_of(noise=1.0)
        protocol = split.protocols[0]
        for one in rank_lists(split, protocol, split.results[0], (64, 32)):
            assert len(one.nearest) == NEAREST
            distances = [image.distance for image in one.nearest]
            assert distances == sorted(distances)
            assert {image.modality for image in one.nearest} == {"infrared"}
            for image in one.nearest:
                assert image.match == (image.identity == one.query.identity)
                assert image.words.startswith("match" if image.match else "no match")

    def test_maps_keep_complete_identities_and_separate_them(self):
        split = split_of(noise=0.1)
        laid_out = maps(split)
        assert len(laid_out.rows) == len(split.rows.identity)
        for points in (laid_out.pca, laid_out.tsne):
            assert points.shape == (90, 2)
        apart = np.linalg.norm(laid_out.tsne[:, None] - laid_out.tsne, axis=-1)
        np.fill_diagonal(apart, np.inf)
        nearest = split.rows.identity[apart.argmin(1)]
        assert (nearest == split.rows.identity).mean() > 0.95
        identity = np.repeat(np.arange(500), 8)
        rows, coloured = chosen_rows(identity, np.tile([0, 1], 2000))
        assert len(rows) == MOST
        assert set(np.bincount(identity[rows])) == {0, 8}
        assert set(coloured) <= set(identity[rows])
        few = {name: vars(split.rows)[name][:5] for name in ("identity", "modality")}
        few = split._replace(features=split.features[:5], rows=SimpleNamespace(**few))
        assert maps(few) is None

    def test_a_network_without_the_last_map_has_no_activation_maps(self, monkeypatch):
        from vireid_jax.report import activations

        monkeypatch.setattr(activations, "responses_of", lambda *_: None)
        config = ConfigDict({"data": {"size": (64, 32)}, "model": {}})
        config.model.granularities = (2,)
        tiles, reason = activation_maps(None, config, split_of().rows)
        assert tiles == []
        assert "no map 'conv5'" in reason

    def test_a_part_s_share_is_of_all_answers(self, monkeypatch):
        from vireid_jax.report import activations

        answers = np.ones((4, 2))
        answers[0] = 5.0
        monkeypatch.setattr(activations, "responses_of", lambda *_: answers)
        config = ConfigDict({"data": {"size": (64, 32)}, "model": {}})
        config.model.granularities = (2,)
        tiles, reason = activation_maps(None, config, split_of().rows)
        assert reason == ""
        assert [one["modality"] for one in tiles] == ["visible", "infrared"] * 2
        shares = [tile["share"] for tile in tiles[0]["tiles"]]
        assert shares == [None, 1.0, pytest.approx(0.75), pytest.approx(0.25)]

    def test_ticks_are_round_and_inside(self):
        assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
        assert ticks(1, 20) == [5, 10, 15, 20]
        assert ticks(3, 3) == [3]
        assert number(-0.0) == "0"
        drawn = Axes((0, 1), (2, 2), "x", "y <")
        drawn.line([0, 1], [2, 2], "c0")
        assert "y &lt;" in drawn.svg('a "title"')
        assert "&quot;title&quot;" in drawn.svg('a "title"')


@pytest.fixture(scope="module")
def one():
    """The page of one run."""
    return page([run_of()])


class TestPage:
    def test_one_run_has_every_figure(self, one):
        for name in FIGURES:
            assert one.count(f'<figure id="{name}"') == 1
        assert len(one.encode()) < 5 * 2**20
        assert "Left out of this page" not in one
        assert "<script" not in one
        assert re.findall(r'(?:src|href)="(?!data:|#)', one) == []

    def test_labels_are_beside_each_number(self, one):
        words = "feature all, image and mirror summed, no re-ranking, epoch 2, last."
        assert one.count(words) >= 6
        assert "regdb/trial_1, visible-to-infrared, 1 trial" in one

    def test_numbers_are_those_of_the_evaluation(self, one):
        for result in split_of().results:
            low, high = result.intervals()["mAP"]
            assert f"{100 * result.mAP:.1f}<small" in one
            assert f"{100 * low:.1f} to {100 * high:.1f}</small>" in one

    def test_trials_have_a_table_and_a_deviation(self):
        split = split_of(SYSU, "sysu_mm01")
        text = page([run_of(test=split)])
        deviation = split.results[0].deviation()["mAP"]
        assert f"<small>± {100 * deviation:.1f}</small>" in text
        assert text.count('<th scope="row">trial 9</th>') == len(split.results)
        assert "from the lowest to the highest of the trials" in text
        rest = ", ".join(f"sysu_mm01/{x}" for x in ("all/multi", "indoor/single"))
        assert text.count(f"is shown; not shown: {rest}, sysu_mm01/indoor/multi.") == 2

    def test_an_image_that_cannot_be_read_is_named(self):
        def refuse(row, size):
            raise UserError("image 'a.jpg' is\nnothing that OpenCV can decode")

        text = page([run_of(test=split_of(image=refuse))])
        assert "image &#39;a.jpg&#39; is nothing that OpenCV can decode." in text
        assert '<figure id="cmc"' in text
        assert '<figure id="ranks-1"' not in text

    def test_without_features_the_results_remain(self):
        left_out = [("CMC curves and more", "the images cannot be read: no folder")]
        run = dataclasses.replace(run_of(), test=None, activations=[])
        text = page([dataclasses.replace(run, left_out=left_out)])
        assert "CMC curves and more: the images cannot be read: no folder." in text
        assert '<figure id="training"' in text
        assert '<figure id="cmc"' not in text

    def test_a_run_that_is_not_at_its_end_has_a_notice(self):
        text = page([run_of(about=about_of(epoch=1.0))])
        assert "was interrupted: this is epoch 1 of 2." in text

    def test_two_runs_are_beside_each_other(self):
        runs = [run_of("runs/one"), run_of("runs/two", split_of(noise=0.8, seed=1))]
        text = page(runs)
        for name in ("training", "cmc", "distances-a", "distances-b", "maps-b"):
            assert text.count(f'<figure id="{name}"') == 1
        assert text.count('<th scope="row">Run B</th>') == len(runs[0].results)
        assert "stroke-dasharray" in text
        ids = re.findall(r' id="([^"]+)"', text)
        assert len(set(ids)) == len(ids)

    def test_differences_between_two_runs_are_listed(self):
        about = about_of(epoch=1.0)
        about["config"]["model"]["name"] = "osnet_x0_25"
        results = [r | {"epoch": 1.0} for r in run_of().results]
        other = run_of("runs/two", about=about, results=results)
        difference = Table("", ["", "A"], [["by a protocol", ""], ["mAP", "1.0"]])
        text = page([run_of(), other], difference)
        assert "<h1>regdb/trial_1: osnet_x1_0 and osnet_x0_25</h1>" in text
        words = ("Test split of regdb/trial_1; feature all, image and mirror summed,"
                 " no re-ranking, epoch")  # fmt: skip
        assert f"A: {words} 2, last. B: {words} 1, last." in text
        row = ('<th scope="row">model.name</th><td>&#39;osnet_x1_0&#39;</td>'
               "<td>&#39;osnet_x0_25&#39;</td>")  # fmt: skip
        assert row in text
        assert '<th scope="rowgroup" colspan="2">by a protocol</th>' in text
        assert "Both runs have the same config." not in text
        same = page([run_of(), run_of("runs/two")], difference)
        assert "Both runs have the same config." in same

    def test_distances_of_two_runs_are_drawn_to_one_scale(self):
        splits = split_of(noise=0.1), split_of(noise=2.0)
        counts = list(map(histograms, splits))
        every = [one for of_run in counts for one in of_run]
        drawn = [distance_histograms(of_run, every, "") for of_run in counts]
        axes = {tuple(re.findall("<text.*?</text>", panel.svg))
                for figure in drawn for panel in figure.panels}  # fmt: skip
        assert len(axes) == 1


@pytest.mark.slow  # half a minute: the features of a complete SYSU-MM01 test
def test_a_test_of_the_size_of_sysu_gives_a_small_page():
    rows = real_size()
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((16, 512), np.float32)
    features = (embed(rows) @ wide).astype(np.float32)
    features += rng.standard_normal(features.shape, np.float32)
    rows = SimpleNamespace(**vars(rows), image=image_of)
    protocols = get_protocols("sysu_mm01")
    results = [evaluate(p, rows, features, selection="last") for p in protocols]
    split = EmbeddedSplit(rows, features, protocols, results)
    text = page([run_of(test=split)])
    assert "A sample: " in text
    assert len(text.encode()) < 5 * 2**20
