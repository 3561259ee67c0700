"""Synthetic trees of the real releases: layout, counts, index files, determinism."""

import collections
import functools
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from python_process import run_python
from vireid_jax.datasets.regdb import regdb_dataset_builder as regdb

from vireid_jax.prepare.release import read_ids, read_index
from vireid_jax.synthetic.__main__ import main
from vireid_jax.synthetic.layouts import LAYOUTS, plan_tree, write_release

GOLDEN = Path(__file__).parent / "golden"


full_tree = functools.cache(plan_tree)


def files(root):
    return {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}


def folders(names, depth):
    """Count the images in each folder of that depth."""
    return collections.Counter("/".join(n.split("/")[:depth]) for n in names)


# The small trees beside the builders, as written by the command.
DUMMIES = Path(regdb.__file__).parents[1]
SMALL = {"ids": 4, "max_images": 2}
SLOW = pytest.mark.slow  # it draws the places of many cameras first
EACH = [pytest.param(n, marks=() if n == "regdb" else SLOW) for n in LAYOUTS]


def small(name):
    return DUMMIES / name / "dummy_data"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_tree_is_what_was_planned_and_every_image_decodes(name):
    tree = plan_tree(name, **SMALL)
    written = files(small(name))
    expected = {*tree.images, *tree.texts, *tree.matrices, "README.txt"}
    assert written.keys() == expected
    assert "Synthetic" in written["README.txt"].read_text()
    start = {".jpg": b"\xff\xd8\xff", ".bmp": b"BM"}[tree.suffix]
    for filename in tree.images:
        assert filename.endswith(tree.suffix)
        assert written[filename].read_bytes().startswith(start)
        pixels = cv2.imread(str(written[filename]), cv2.IMREAD_UNCHANGED)
        assert pixels.shape == (32, 16, 3)
    for filename, text in tree.texts.items():
        assert written[filename].read_text() == text


@pytest.mark.parametrize("name", EACH)
def test_the_trees_beside_the_builders_can_be_made_again(tmp_path, name):
    write_release(name, tmp_path / name, size=(32, 16), **SMALL)
    content = lambda root: {
        filename: path.read_bytes()
        for filename, path in files(root).items()
        if not filename.endswith(".mat")  # holds the time of day
    }
    assert content(tmp_path / name) == content(small(name))
    empty = [
        p for p in (tmp_path / name).rglob("*") if p.is_dir() and not any(p.iterdir())
    ]
    assert empty == ([tmp_path / name / "test_nir/cam3"] if name == "llcm" else [])


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_seed_plans_the_same_tree_and_another_seed_another(name):
    first, again, other = (plan_tree(name, 4, seed) for seed in (0, 0, 1))
    assert (first.images, first.texts) == (again.images, again.texts)
    assert first.texts != other.texts


def test_nobody_is_of_two_sets():
    people = [
        {spec.identity for spec in full_tree(name).images.values()} for name in LAYOUTS
    ]
    assert sum(map(len, people)) == len(set.union(*people)) == 491 + 412 + 1064
    assert min(set.union(*people)) >= 1_000_000  # those of `walkers` lie below


# --- SYSU-MM01 ------------------------------------------------------------------------


def test_the_full_sysu_tree_has_the_published_counts():
    tree = full_tree("sysu_mm01")
    cameras = folders(tree.images, 1)
    assert [cameras[f"cam{c}"] for c in range(1, 7)] == [
        6289, 7528, 9812, 8030, 8224, 5980
    ]  # fmt: skip
    lists = {name: text.strip().split(",") for name, text in tree.texts.items()}
    sizes = {name: len(members) for name, members in lists.items()}
    assert sizes == {
        "exp/train_id.txt": 296, "exp/val_id.txt": 99, "exp/test_id.txt": 96,
        "exp/available_id.txt": 491,
    }  # fmt: skip
    joined = [i for n in ("train", "val", "test") for i in lists[f"exp/{n}_id.txt"]]
    assert sorted(joined, key=int) == lists["exp/available_id.txt"]
    pairs = folders(tree.images, 2)
    of_people = collections.Counter(pair.split("/")[1] for pair in pairs)
    assert min(of_people.values()) == 2  # available: in two cameras at least
    assert 6 in of_people.values()


def test_the_test_identities_have_the_images_of_the_official_draws():
    official = np.load(GOLDEN / "sysu_official_perm_test.npz")
    pairs = folders(full_tree("sysu_mm01").images, 2)
    test = {f"{identity:04d}" for identity in official["test_id"]}
    rows = [*official["gallery_cam_id_count"], *official["query_cam_id_count"]]
    expected = {f"cam{camera}/{i:04d}": count for camera, i, count in rows}
    assert {p: n for p, n in pairs.items() if p.split("/")[1] in test} == expected


def test_a_small_sysu_tree_has_its_lists_and_permutations():
    root = small("sysu_mm01")
    for name in ("train", "val", "test", "available"):
        text = (root / f"exp/{name}_id.txt").read_text()
        assert text.count("\n") == 1
    ids = {n: read_ids(root / f"exp/{n}_id.txt") for n in ("train", "val", "test")}
    assert {n: len(members) for n, members in ids.items()} == {
        "train": 1, "val": 1, "test": 2
    }  # fmt: skip
    cells = scipy.io.loadmat(root / "exp/rand_perm_cam.mat")["rand_perm_cam"]
    assert cells.shape == (6, 1)
    for camera in range(1, 7):
        people = cells[camera - 1][0].squeeze()
        assert len(people) == (533 if camera in (3, 4, 5) else 333)
        for identity, orders in enumerate(people, 1):
            images = sorted((root / f"cam{camera}/{identity:04d}").glob("*.jpg"))
            assert [p.stem for p in images] == [
                f"{n:04d}" for n in range(1, len(images) + 1)
            ]
            if images:
                assert orders.shape == (10, len(images))
                assert orders.dtype == np.uint8
                assert (np.sort(orders) == np.arange(1, len(images) + 1)).all()


# --- RegDB and LLCM -------------------------------------------------------------------


def test_the_full_regdb_tree_has_ten_images_of_each_and_ten_halvings():
    tree = full_tree("regdb")
    assert set(folders(tree.images, 2).values()) == {10}
    assert folders(tree.images, 1) == {"Visible": 4120, "Thermal": 4120}
    assert len(tree.texts) == 40
    assert {len(text.splitlines()) for text in tree.texts.values()} == {2060}
    assert len({tree.texts[f"idx/train_visible_{t}.txt"] for t in range(1, 11)}) == 10


def test_regdb_labels_stand_for_the_same_folders_in_both_modalities():
    root = small("regdb")
    for trial in range(1, 11):
        halves = []
        for split in ("train", "test"):
            people = [
                {
                    (label, filename.split("/")[1])
                    for filename, label in read_index(
                        root / f"idx/{split}_{kind}_{trial}.txt", root
                    ).items()
                }
                for kind in ("visible", "thermal")
            ]
            assert people[0] == people[1]
            assert sorted(label for label, _ in people[0]) == [0, 1]
            halves.append({folder for _, folder in people[0]})
        assert not halves[0] & halves[1]
        assert len(halves[0] | halves[1]) == 4


def test_the_full_llcm_tree_has_the_papers_counts():
    tree = full_tree("llcm")
    assert folders(tree.images, 1) == {
        "vis": 16946, "nir": 13975, "test_vis": 8680, "test_nir": 7166
    }  # fmt: skip
    cameras = folders([n for n in tree.images if n.startswith("test")], 2)
    assert len(cameras) == 9 + 8
    assert "test_nir/cam3" not in cameras
    labels = {
        int(line.split()[1])
        for line in tree.texts["idx/train_vis.txt"].split("\n")[:-1]
    }
    assert labels == set(range(713))
    assert len(tree.texts["idx/test_id.txt"].split(",")) == 351


def test_llcm_has_an_empty_camera_and_lists_all_of_its_images():
    root = small("llcm")
    assert plan_tree("llcm", **SMALL).empty == ["test_nir/cam3"]
    listed = [
        filename
        for name in ("train_vis", "train_nir", "test_vis", "test_nir")
        for filename in read_index(root / f"idx/{name}.txt", root)
    ]
    assert sorted(listed) == sorted(plan_tree("llcm", **SMALL).images)


# --- The command, and its errors ------------------------------------------------------


def test_the_command_writes_a_tree(tmp_path, capsys):
    out = tmp_path / "RegDB"
    options = ["--ids", "2", "--size", "32x16", "--images", "1", "--seed", "3"]
    main(["--layout", "regdb", "--out", str(out), *options])
    assert capsys.readouterr().out == f"{out}: 4 synthetic images\n"
    assert "--seed 3" in (out / "README.txt").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"RegDB"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layout", "market", "--out", "x"], "choose sysu_mm01, regdb, llcm"),
        (["--layout", "regdb"], "give --layout NAME and --out DIR together"),
        (["--layout", "regdb", "--out", "x", "--ids", "413"], "2 to 412 identities"),
        (["--layout", "regdb", "--out", "x", "--ids", "many"], "'many': give a whole"),
        (["--layout", "llcm", "--out", "x", "--size", "64"], "'64': give HxW"),
        (["--layout", "llcm", "--out", "x", "--size", "8x4"], "at least (32, 16)"),
        (["--layout", "llcm", "--out", "x", "--images", "0"], "images=0: give at"),
        (["--layout", "llcm", "--out", "x", "--seed", "-1"], "seed=-1: give 0 or more"),
        (["--layout", "regdb", "--out", "full"], "full is not empty, and"),
    ],
)
def test_bad_values_are_one_line_errors_and_nothing_is_written(
    tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/data").touch()
    if "--ids" not in arguments:
        arguments = [*arguments, "--ids", "4"]
    with pytest.raises(SystemExit, match=f"^error: .*{re.escape(message)}[^\n]*$"):
        main(arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"full"}


def test_a_tree_needs_no_jax(tmp_path):
    script = (
        "import sys\n"
        "from vireid_jax.synthetic.layouts import write_release\n"
        f"write_release('regdb', {str(tmp_path / 'x')!r}, ids=2, size=(32, 16))\n"
        "assert not {'jax', 'tensorflow_datasets'} & set(sys.modules)\n"
    )
    assert run_python("-c", script).returncode == 0
