"""Features and distances of other frameworks, in files, against our own ranking."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat
from splits import embed, fake_tree

from vireid_jax.evaluate import foreign_features
from vireid_jax.evaluate.foreign_features import evaluate_file
from vireid_jax.modality import MODALITIES
from vireid_jax.protocols import KReciprocal, evaluate, find_protocol
from vireid_jax.protocols.protocol import DIRECTIONS

NAMES = [
    "sysu_mm01/all/single",
    "sysu_mm01/indoor/multi",
    "llcm/visible-to-infrared",
    "llcm/visible-to-infrared/swapped",
]


def evaluate_foreign(path, protocol, reranking=None):
    results, _ = evaluate_file(path, [protocol], reranking)
    return results[0]


def split_of(name):
    rows = fake_tree(name.partition("/")[0])
    return rows, np.asarray(embed(rows), np.float32)


def arrays_of(name, **changed):
    rows, features = split_of(name)
    columns = {k: getattr(rows, k) for k in ("identity", "camera", "modality")}
    return {"features": features, "filename": rows.filename, **columns, **changed}


def write(folder, arrays):
    np.savez(folder / "f.npz", **arrays)
    return folder / "f.npz"


def same(one, other):
    assert one.labels.queries == other.labels.queries
    for a, b in zip(one.by_trial, other.by_trial, strict=True):
        np.testing.assert_array_equal(a.first_hit, b.first_hit)
        np.testing.assert_allclose(a.ap, b.ap, rtol=1e-12)


@pytest.mark.parametrize("kind", ["npz", "mat"])
@pytest.mark.parametrize("name", NAMES)
def test_features_in_a_file_rank_as_ours(name, kind, tmp_path):
    """Whatever the order of the rows, and modalities as words or numbers."""
    protocol, arrays = find_protocol(name), arrays_of(name)
    order = np.random.default_rng(0).permutation(len(arrays["identity"]))
    mixed = {key: np.asarray(x)[order] for key, x in arrays.items()}
    path = tmp_path / f"f.{kind}"
    if kind == "npz":
        mixed["modality"] = np.array(MODALITIES)[mixed["modality"]]
        np.savez(path, **mixed)
    else:
        mixed["filename"] = mixed["filename"].astype(object)  # a cell array
        savemat(path, mixed)
    found = evaluate_foreign(path, protocol)
    expected = evaluate(protocol, *split_of(name))
    assert found.headline() == pytest.approx(expected.headline(), abs=1e-12)
    assert found.labels.feature == f"f.{kind}"


def test_without_file_names_rows_are_in_their_order(tmp_path):
    arrays = arrays_of(NAMES[1])
    del arrays["filename"]
    found = evaluate_foreign(write(tmp_path, arrays), find_protocol(NAMES[1]))
    same(found, evaluate(find_protocol(NAMES[1]), *split_of(NAMES[1])))


@pytest.mark.parametrize("name", NAMES)
def test_distances_in_a_file_rank_as_the_features_they_are_of(name, tmp_path):
    protocol = find_protocol(name)
    rows, features = split_of(name)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    arrays, sides = {}, {}
    for side, modality in zip(("query", "gallery"), protocol.modalities, strict=True):
        sides[side] = np.flatnonzero(rows.modality == MODALITIES.index(modality))
        for key in ("identity", "camera"):
            arrays[f"{side}_{key}"] = getattr(rows, key)[sides[side]]
        arrays[f"{side}_filename"] = [rows.filename[row] for row in sides[side]]
    arrays["distances"] = 1 - unit[sides["query"]] @ unit[sides["gallery"]].T
    found = evaluate_foreign(write(tmp_path, arrays), protocol)
    same(found, evaluate(protocol, rows, features))
    with pytest.raises(ValueError, match="needs features"):
        evaluate_foreign(write(tmp_path, arrays), protocol, KReciprocal())


def test_official_draws_need_the_releases_file_names(tmp_path):
    protocol = replace(find_protocol(NAMES[0]), draws="official")
    for arrays in (
        arrays_of(NAMES[0]),
        {"distances": np.eye(2), "filename": []}
        | dict.fromkeys(["query_identity", "gallery_identity"], np.arange(2))
        | dict.fromkeys(["query_camera", "gallery_camera"], np.arange(2)),
    ):
        del arrays["filename"]
        with pytest.raises(ValueError, match=r"has no (gallery_)?filename"):
            evaluate_foreign(write(tmp_path, arrays), protocol)


def test_reranking_is_named(tmp_path):
    found = evaluate_foreign(
        write(tmp_path, arrays_of(NAMES[0])),
        find_protocol(NAMES[0]),
        KReciprocal(k1=3, k2=2),
    )
    assert found.labels.reranking.startswith("k-reciprocal (paper) k1=3 k2=2")


def spoilt(name, row, value):
    arrays = arrays_of(NAMES[0])
    arrays[name] = np.array(arrays[name])
    arrays[name][row] = value
    return arrays


WRONG = {
    "features without cameras": (
        lambda: {k: v for k, v in arrays_of(NAMES[0]).items() if k != "camera"},
        "it has no camera; it holds features, filename, identity, modality",
    ),
    "features, and an identity too few": (
        lambda: arrays_of(NAMES[0], identity=fake_tree("sysu_mm01").identity[1:]),
        "identity is (",
        "rows, so it is",
    ),
    "features that are not finite": (
        lambda: spoilt("features", 5, np.nan),
        "1 of ",
        "row 5",
    ),
    "a feature that is all zero": (lambda: spoilt("features", 7, 0), "1 of ", "row 7"),
    "Python objects in a file of features": (
        lambda: arrays_of(NAMES[0], identity=np.array([{}], object)),
        "Python objects; give --features",
    ),
    "features of an unknown modality": (
        lambda: arrays_of(NAMES[0], modality=["thermal"] * len(split_of(NAMES[0])[1])),
        "modality 'thermal'; valid values: ['visible', 'infrared']",
    ),
    "features of one modality alone": (
        lambda: {
            key: np.asarray(x)[fake_tree("sysu_mm01").modality == 0]
            for key, x in arrays_of(NAMES[0]).items()
        },
        "no infrared image",
    ),
    "a camera of the other modality": (
        lambda: spoilt("camera", 0, 3),
        "is visible, of camera 3; ",
        "are [1, 2, 4, 5]",
    ),
    "identities that are no whole numbers": (
        lambda: arrays_of(NAMES[0], identity=fake_tree("sysu_mm01").identity + 0.5),
        "identity is float64; valid values: whole numbers",
    ),
    "an identity that is no number": (
        lambda: arrays_of(
            NAMES[0], identity=np.full(len(split_of(NAMES[0])[1]), np.nan)
        ),
        "row 0 holds nan",
    ),
    "an identity that is too large": (
        lambda: arrays_of(
            NAMES[0], identity=np.full(len(split_of(NAMES[0])[1]), 2**33)
        ),
        "below 2**31, and row 0 holds 85899",
    ),
    "one file name for several images": (
        lambda: arrays_of(NAMES[0], filename=["a"] * len(split_of(NAMES[0])[1])),
        "file name 'a' is given ",
    ),
    "features that are no matrix": (
        lambda: arrays_of(NAMES[0], features=np.ones(3)),
        "a real matrix",
    ),
}


@pytest.mark.mistakes("evaluation")
@pytest.mark.parametrize("title", WRONG)
def test_a_file_that_does_not_fit_is_refused(title, refuses, tmp_path):
    make, *words = WRONG[title]
    path, protocol = write(tmp_path, make()), find_protocol(NAMES[0])
    refuses(title, lambda: evaluate_foreign(path, protocol), *words)


def test_a_file_is_read_once_for_all_protocols(tmp_path, monkeypatch):
    path = write(tmp_path, arrays_of(NAMES[0]))
    read, times = foreign_features.read_arrays, []
    monkeypatch.setattr(
        foreign_features, "read_arrays", lambda path: times.append(path) or read(path)
    )
    results, rows = evaluate_file(path, [find_protocol(name) for name in NAMES[:2]])
    assert [result.labels.protocol for result in results] == NAMES[:2]
    assert len(rows.filename) == len(split_of(NAMES[0])[1])
    assert times == [path]


def test_distances_have_one_direction(tmp_path):
    sides = ("query_identity", "query_camera", "gallery_identity", "gallery_camera")
    columns = {name: np.arange(3) for name in sides}
    path = write(tmp_path, {"distances": np.eye(3), **columns})
    both = [find_protocol(f"regdb/{d}") for d in DIRECTIONS]
    with pytest.raises(ValueError, match="each direction needs a file"):
        evaluate_file(path, both)


def test_what_is_no_such_file_is_refused(tmp_path):
    def refuses(path, words):
        with pytest.raises(ValueError, match=words):
            evaluate_foreign(path, find_protocol(NAMES[0]))

    refuses(tmp_path / "none.npz", "is missing; give --features")
    for name, words in {
        "f.csv": "is no .npz or .mat file",
        "f.npz": "is damaged",
        "f.mat": "cannot be read",
    }.items():
        (tmp_path / name).write_bytes(b"something else, long enough to have a header")
        refuses(tmp_path / name, words)
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "f.mat").write_bytes(header.ljust(512))
    refuses(tmp_path / "f.mat", "save it with '-v7'")


def test_the_command(tmp_path):
    command = [sys.executable, "-m", "vireid_jax.evaluate", "--features"]

    def run(*arguments):
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    path, out = str(write(tmp_path, arrays_of(NAMES[0]))), str(tmp_path / "out.json")
    done = run(path, "--protocol", *NAMES[:2], "--out", out)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    assert [one["protocol"] for one in document["results"]] == NAMES[:2]
    expected = evaluate(find_protocol(NAMES[0]), *split_of(NAMES[0]))
    assert document["results"][0]["metrics"] == pytest.approx(expected.headline())
    assert len(document["results"][0]["by_trial"]) == 10
    done = run(path, "--protocol", "sysu_mm01/all/singel")
    assert done.returncode == 1
    assert "did you mean sysu_mm01/all/single" in done.stderr
    assert "Traceback" not in done.stderr
