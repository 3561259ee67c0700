import io
import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from vireid_jax.protocols import (
    KReciprocal,
    Protocol,
    evaluate,
    get_protocols,
    results_table,
)


def make_rows(ids=6, shots=3, cameras=2, seed=0):
    """Rows of a split in mixed order; visible cameras 0.., infrared ones after them."""
    modality = np.arange(2 * ids * shots) % 2
    order = np.random.default_rng(seed).permutation(len(modality))
    rows = SimpleNamespace(
        identity=np.repeat(np.arange(ids), 2 * shots)[order] + 100,
        modality=modality[order],
        camera=(modality * cameras + np.arange(len(modality)) // 2 % cameras)[order],
    )
    columns = {name: column.astype(np.int32) for name, column in vars(rows).items()}
    return SimpleNamespace(filename=file_names(len(modality)), **columns)


def file_names(count):
    return [f"{row:04}.jpg" for row in range(count)]


def one_hot(rows):
    return np.eye(rows.identity.max() + 1, dtype=np.float32)[rows.identity]


@pytest.mark.parametrize("dataset", ["walkers", "walkers/thermal", "walkers/nir"])
def test_walkers_compares_all_of_one_modality_with_all_of_the_other(dataset):
    rows = make_rows()
    visible, infrared = (np.flatnonzero(rows.modality == m) for m in (0, 1))
    to_infrared, to_visible = get_protocols(dataset)
    assert to_infrared.name == "walkers/visible-to-infrared"
    assert to_visible.name == "walkers/infrared-to-visible"
    for protocol, queries, gallery in [
        (to_infrared, visible, infrared),
        (to_visible, infrared, visible),
    ]:
        assert protocol.dataset == dataset
        assert not protocol.distinct
        assert (protocol.trials, protocol.draws) == ((0,), "none")
        np.testing.assert_array_equal(protocol.queries(rows, 0), queries)
        np.testing.assert_array_equal(protocol.gallery(rows, 0), gallery)
        assert protocol.ignored(rows, queries, gallery) is None
        cameras = set(rows.camera[queries]) & set(rows.camera[gallery])
        assert not cameras  # why nothing needs to be ignored


def test_a_split_with_one_modality_is_an_error():
    rows = make_rows()
    rows.modality[:] = 0
    with pytest.raises(ValueError, match="no infrared image"):
        evaluate(get_protocols("walkers")[0], rows, one_hot(rows))


def test_a_perfect_embedding_scores_one_whatever_the_length_of_its_vectors():
    rows = make_rows()
    scale = np.random.default_rng(0).uniform(0.1, 9, (len(rows.identity), 1))
    for protocol in get_protocols("walkers/thermal"):
        result = evaluate(protocol, rows, one_hot(rows) * scale.astype(np.float32))
        assert set(result.headline().values()) == {1.0}


def test_evaluate_by_hand():
    """Two visible queries of ids 1 and 2, infrared gallery of ids 2, 1, 1."""
    rows = SimpleNamespace(
        identity=np.array([1, 2, 2, 1, 1], np.int32),
        modality=np.array([0, 0, 1, 1, 1], np.int32),
        camera=np.zeros(5, np.int32),
        filename=file_names(5),
    )
    angle = np.radians([0, 90, 10, 20, 80])
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    result = evaluate(get_protocols("walkers")[0], rows, features)
    # Query 0 meets ids 2, 1, 1; query 1 meets ids 1, 1, 2.
    (trial,) = result.by_trial
    np.testing.assert_array_equal(trial.first_hit, [2, 3])
    np.testing.assert_allclose(trial.ap, [(1 / 2 + 2 / 3) / 2, 1 / 3])
    np.testing.assert_allclose(trial.inp, [2 / 3, 1 / 3])
    assert result.headline()["Rank-1"] == 0
    np.testing.assert_allclose(result.cmc[:3], [0, 0.5, 1])


def test_json_carries_every_label_and_fractions():
    rows = make_rows()
    result = evaluate(
        get_protocols("walkers/nir")[1],
        rows,
        one_hot(rows),
        flip=True,
        epoch=12,
        selection="best",
    )
    assert json.loads(json.dumps(result.to_json())) == {
        "dataset": "walkers/nir",
        "protocol": "walkers/infrared-to-visible",
        "direction": "infrared-to-visible",
        "mode": None,
        "shots": None,
        "trials": [0],
        "draws": "none",
        "queries": 18,
        "valid_queries": 18,
        "gallery": 18,
        "published_counts": "none",
        "feature": "global",
        "flip": True,
        "reranking": "none",
        "epoch": 12,
        "selection": "best",
        "baseline": False,
        "metrics": dict.fromkeys(
            ["Rank-1", "Rank-5", "Rank-10", "Rank-20", "mAP", "mINP"], 1.0
        ),
        "by_trial": [result.headline()],
        "deviation": {},
        "intervals": {name: [1.0, 1.0] for name in ("Rank-1", "mAP", "mINP")},
    }


@dataclass(frozen=True)
class FirstItems(Protocol):
    """Draws: trial t keeps gallery items t and t + 1; queries drop camera 3."""

    length: int = 2

    def queries(self, records, trial):
        return np.array([0, 1])

    def gallery(self, records, trial):
        return np.array([2, 3, 4, 5])[trial : trial + self.length + trial * (trial > 1)]

    def ignored(self, records, queries, gallery):
        return np.tile(records.camera[gallery] == 3, (len(queries), 1))


def test_trials_are_averaged_and_the_ignore_rule_is_used():
    rows = SimpleNamespace(
        identity=np.array([1, 2, 1, 2, 1, 2]),
        camera=np.array([0, 0, 3, 1, 1, 1]),
        modality=np.array([0, 0, 1, 1, 1, 1]),
        filename=file_names(6),
    )
    angles = np.radians([0, 0, 0, 30, 40, 50])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    protocol = FirstItems("p/d", "s", "d", distinct=False, trials=(0, 1), draws="first")
    # Trial 0 keeps id 2 alone (query 0 is invalid), trial 1 both ids: ranks 2 and 1.
    with pytest.raises(ValueError, match="other numbers of"):
        evaluate(protocol, rows, features)
    rows.camera[2] = 1
    result = evaluate(protocol, rows, features)
    assert [metrics.mAP for metrics in result.by_trial] == [0.75, 0.75]
    rows.identity[:2] = 2, 2
    result = evaluate(protocol, rows, features)
    assert [metrics.mAP for metrics in result.by_trial] == [0.5, 1.0]
    assert (result.mAP, result.cmc[0]) == (0.75, 0.5)
    assert (result.labels.trials, result.labels.draws) == ((0, 1), "first")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.ones((7, 2), np.float32)}, "7 features for 36 rows"),
        ({"features": np.full((36, 2), np.nan)}, "not finite in 18 of 18 rows"),
    ],
)
def test_bad_input_is_an_error(change, message):
    rows = make_rows()
    call = {"features": one_hot(rows)} | change
    with pytest.raises(ValueError, match=message):
        evaluate(get_protocols("walkers")[0], rows, **call)


def printed(results, width=80):
    paper = io.StringIO()
    Console(width=width, file=paper).print(results_table(results))
    return [" ".join(line.split()) for line in paper.getvalue().splitlines()]


def test_table_puts_baselines_under_the_model_and_shows_all_labels():
    rows = make_rows()
    noise = np.random.default_rng(0).standard_normal((36, 4))
    floors, models = [], []
    for protocol in get_protocols("walkers/thermal"):
        floors.append(evaluate(protocol, rows, noise, feature="chance", baseline=True))
        models.append(
            evaluate(protocol, rows, one_hot(rows), epoch=7, selection="last")
        )
    lines = printed(floors + models)
    start = lines.index("walkers/visible-to-infrared")
    assert lines[start + 1] == "global" + 6 * " 100.00"
    assert lines[start + 2].startswith("chance ")
    assert f"{100 * floors[0].mAP:.2f} {100 * floors[0].mINP:.2f}" in lines[start + 2]
    assert lines[start + 3] == "walkers/infrared-to-visible"
    assert lines[start + 4] == "global" + 6 * " 100.00"
    assert lines[start + 5].startswith("chance ")
    assert " ".join(lines[start + 6 :]).strip() == (
        "dataset walkers/thermal · mode - · shots - · trials 0 · draws none · "
        "queries 18 · valid queries 18 · gallery 18 · published counts none · "
        "flip no · reranking none · epoch 7 · selection last"
    )


def test_labels_that_differ_are_beside_what_they_describe():
    rows = make_rows()
    thermal = evaluate(get_protocols("walkers/thermal")[0], rows, one_hot(rows))
    nir = evaluate(get_protocols("walkers/nir")[0], rows, one_hot(rows), epoch=3)
    text = "\n".join(printed([thermal, nir], width=120))
    heading = "walkers/visible-to-infrared, dataset walkers"
    assert f"{heading}/thermal\nglobal, epoch - 100.00" in text
    assert f"{heading}/nir\nglobal, epoch 3 100.00" in text
    assert "· dataset" not in text


def test_the_table_shows_a_direction_that_no_name_holds():
    rows = make_rows(cameras=1)
    rows.camera[:] = np.where(rows.modality == 0, 1, 3)
    results = [
        evaluate(protocol, rows, one_hot(rows))
        for protocol in get_protocols("sysu_mm01")
    ]
    alone = " ".join(printed(results[:1], width=200))
    assert "sysu_mm01/all/single global" in alone
    assert "· direction infrared-to-visible · mode all · shots 1 · trials 0, 1" in alone
    counts = "published counts differ: 3803 queries, 301 gallery images"
    assert f"queries 18 · valid queries 18 · gallery 6 · {counts}" in alone
    both = evaluate(get_protocols("walkers")[0], rows, one_hot(rows))
    together = " ".join(printed([both, *results], width=200))
    assert "walkers/visible-to-infrared, dataset" in together
    assert "sysu_mm01/indoor/multi, dataset sysu_mm01, direction infrared" in together


def test_a_reranked_row_has_its_label():
    rows = make_rows()
    protocol = get_protocols("walkers")[0]
    plain = evaluate(protocol, rows, one_hot(rows))
    reranked = evaluate(protocol, rows, one_hot(rows), reranking=KReciprocal(k1=4))
    name = "k-reciprocal (paper) k1=4 k2=6 lambda=0.3"
    assert reranked.labels.reranking == reranked.to_json()["reranking"] == name
    lines = printed([plain, reranked], width=160)
    start = lines.index("walkers/visible-to-infrared")
    assert lines[start + 1] == "global, reranking none" + 6 * " 100.00"
    assert lines[start + 2] == f"global, reranking {name}" + 6 * " 100.00"
