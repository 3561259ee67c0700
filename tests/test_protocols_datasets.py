"""The protocols of LLCM, RegDB and custom data, and how a name finds one."""

import numpy as np
import pytest
from splits import DRAWS, SYSU, embed, fake_tree, files, regdb

from vireid_jax.protocols import (
    evaluate,
    find_protocol,
    get_protocols,
    validation_protocols,
)


@pytest.mark.parametrize("name", DRAWS["llcm"]["gallery"])
def test_llcm_draws_equal_the_reference_loaders(name):
    view, trial = name.split("/")
    trial = int(trial.removeprefix("trial"))
    rows = fake_tree("llcm")
    queried, drawn = DRAWS["llcm"]["query"], DRAWS["llcm"]["gallery"][name]
    direction, other = {
        "vis": ("infrared-to-visible", "nir"),
        "nir": ("visible-to-infrared", "vis"),
    }[view]
    protocol = find_protocol(f"llcm/{direction}")
    queries, gallery = protocol.queries(rows, trial), protocol.gallery(rows, trial)
    assert files(rows, queries) == queried[other]["files"]
    assert files(rows, gallery) == drawn["files"]
    assert rows.identity[gallery].tolist() == drawn["ids"]
    assert rows.camera[gallery].tolist() == drawn["cams"]


@pytest.mark.parametrize("trial", [0, 1, 2, 9])
def test_llcm_swapped_queries_the_draw_and_has_its_own_direction(trial):
    rows = fake_tree("llcm")
    straight = find_protocol("llcm/visible-to-infrared")
    swapped = find_protocol("llcm/visible-to-infrared/swapped")
    drawn, everything = straight.gallery(rows, trial), straight.queries(rows, trial)
    np.testing.assert_array_equal(swapped.queries(rows, trial), drawn)
    np.testing.assert_array_equal(swapped.gallery(rows, trial), everything)
    np.testing.assert_array_equal(
        swapped.ignored(rows, drawn, everything),
        straight.ignored(rows, everything, drawn).T,
    )
    labels = evaluate(swapped, rows, embed(rows)).labels
    assert labels.protocol == "llcm/visible-to-infrared/swapped"
    assert labels.direction == "infrared-to-visible"


def test_llcm_ignores_the_same_identity_in_the_same_camera():
    rows = fake_tree("llcm")
    for protocol in get_protocols("llcm"):
        assert (protocol.distinct, protocol.shots, protocol.draws) == (True, 1, "agw")
        assert protocol.trials == tuple(range(10))
        queries, gallery = protocol.queries(rows, 0), protocol.gallery(rows, 0)
        ignored = protocol.ignored(rows, queries, gallery)
        who = np.stack([rows.identity, rows.camera], axis=1)
        same = (who[queries][:, None] == who[gallery]).all(axis=2)
        np.testing.assert_array_equal(ignored, same)
        assert evaluate(protocol, rows, embed(rows)).labels.published_counts == "none"


def test_regdb_compares_all_with_all_in_items():
    rows = regdb()
    visible, infrared = (np.flatnonzero(rows.modality == m) for m in (0, 1))
    forth, back = get_protocols("regdb/trial_3")
    assert forth.name == "regdb/visible-to-infrared/trial_3"
    assert back.name == "regdb/infrared-to-visible/trial_3"
    for protocol, queries, gallery in [
        (forth, visible, infrared),
        (back, infrared, visible),
    ]:
        assert not protocol.distinct
        assert (protocol.dataset, protocol.trials) == ("regdb/trial_3", (3,))
        np.testing.assert_array_equal(protocol.queries(rows, 3), queries)
        np.testing.assert_array_equal(protocol.gallery(rows, 3), gallery)
        assert protocol.ignored(rows, queries, gallery) is None
        labels = evaluate(protocol, rows, embed(rows)).labels
        assert (labels.queries, labels.gallery) == (2060, 2060)
        assert labels.published_counts == "agree"


def test_custom_data_ignores_the_same_identity_in_the_same_camera():
    rows = regdb(identities=4, images=4)
    rows.camera[:] = np.arange(32) % 2
    for protocol in get_protocols("custom/shop"):
        assert (protocol.dataset, protocol.distinct) == ("custom/shop", False)
        queries, gallery = protocol.queries(rows, 0), protocol.gallery(rows, 0)
        assert len(queries) == len(gallery) == 16
        assert protocol.ignored(rows, queries, gallery).sum(axis=1).tolist() == [2] * 16
        assert evaluate(protocol, rows, embed(rows)).labels.valid_queries == 16


def test_defaults_of_each_data_set():
    names = {
        dataset: [protocol.name for protocol in get_protocols(dataset)]
        for dataset in ("sysu_mm01", "llcm", "regdb", "regdb/trial_10", "custom")
    }
    both = ["visible-to-infrared", "infrared-to-visible"]
    assert names == {
        "sysu_mm01": [name for name, _ in SYSU],
        "llcm": [f"llcm/{d}" for d in both],
        "regdb": [f"regdb/{d}/trial_1" for d in both],
        "regdb/trial_10": [f"regdb/{d}/trial_10" for d in both],
        "custom": [f"custom/{d}" for d in both],
    }


def test_a_name_finds_the_protocol_of_that_name():
    for dataset in ("sysu_mm01", "llcm", "regdb/trial_1", "regdb/trial_7", "walkers"):
        for protocol in get_protocols(dataset):
            assert find_protocol(protocol.name) == protocol
    short = find_protocol("regdb/visible-to-infrared")
    assert short.name == "regdb/visible-to-infrared/trial_1"


@pytest.mark.parametrize(
    ("call", "bad", "message"),
    [
        (get_protocols, "market1501/x", r"'market1501/x'; valid values: custom, llcm"),
        (get_protocols, "sysu-mm01", r"'sysu-mm01'; did you mean sysu_mm01\?"),
        (get_protocols, "regdb/trial_11", r"no 'trial_11'; valid values: trial_1, "),
        (find_protocol, "llcm/visible-to-infared", r"mean llcm/visible-to-infrared\?"),
        (find_protocol, "sysu_mm01/al/single", r"mean sysu_mm01/all/single\?"),
        (
            find_protocol,
            "llcm/infrared-to-visible/swapped",
            "valid values: sysu_mm01/<all",
        ),
        (find_protocol, "", "no protocol ''; valid values:"),
    ],
)
def test_unknown_names_are_errors(call, bad, message):
    with pytest.raises(ValueError, match=message):
        call(bad)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("sysu_mm01", ["sysu_mm01/all/single"]),
        ("llcm", ["llcm/visible-to-infrared", "llcm/infrared-to-visible"]),
    ],
)
def test_validation_has_one_protocol_a_direction(dataset, expected):
    protocols = validation_protocols(dataset)
    assert sorted(protocol.name for protocol in protocols) == sorted(expected)
