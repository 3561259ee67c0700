"""`python -m vireid_jax.prepare --check`: counts, and what would change results."""

import shutil

import pytest
from data_sets import FIRST, RELEASES, TEST_ID, VISIBLE, edit, run, write
from vireid_jax.datasets.regdb import regdb_dataset_builder as regdb

from vireid_jax.prepare.release_check import Finding, check_release, count


def rows(name, root):
    builder = __import__(
        f"vireid_jax.datasets.{name}.{name}_dataset_builder", fromlist=["Builder"]
    ).Builder
    configs = list(builder.builder_configs) or [""]
    found = check_release(builder, root, configs)
    return {row.what: row for row in found}


@pytest.mark.parametrize("name", RELEASES)
def test_a_small_tree_fails_for_its_counts_alone(release, name, capsys):
    root = release(name)
    error = run(name, root, "--check")
    assert "would change results, the first being 'train identities: 2" in error
    assert "(--partial if a smaller release is meant)" in error
    capsys.readouterr()
    assert run(name, root, "--check", "--partial") == ""
    shown = capsys.readouterr().out
    assert "Nothing here would change results." in shown
    assert "differs, not judged" in shown
    assert {row.verdict for row in rows(name, root).values()} == {"ok", "differs", ""}


def test_training_totals_of_sysu_and_the_papers_of_llcm_are_not_judged(release):
    found = rows("sysu_mm01", release("sysu_mm01"))
    assert found["train infrared images"].expected == "11,909 or 11,989"
    assert found["train infrared images"].verdict == ""
    assert found["test infrared images"].expected == "3,803"
    found = rows("llcm", release("llcm"))
    assert found["test visible images"][2:] == ("8,680", "")
    assert found["test_nir/cam3 is empty, as released"].verdict == ""


def test_published_counts_are_ok(release, monkeypatch):
    root = release("regdb")
    read = regdb.Builder.read(root, "trial_1")
    published = count(read)
    assert published["test visible images"] == 4
    monkeypatch.setattr(regdb.Builder, "PUBLISHED", published)
    monkeypatch.setattr(regdb.Builder, "more_counts", lambda root, splits: {})
    assert run("regdb", root, "--check") == ""
    assert rows("regdb", root)["test visible images"] == Finding(
        "test visible images", "4 in each", "4", "ok"
    )


def duplicate(old, new):
    return lambda root: shutil.copy(min(root.glob(old)), max(root.glob(new)))


def forget_an_image(root):
    """Remove one of a test identity, which the permutations still know."""
    tested = [f"{int(entry):04d}" for entry in TEST_ID.split(",")]
    min(p for i in tested for p in root.glob(f"cam[1245]/{i}/*.jpg")).unlink()


@pytest.mark.parametrize(
    ("name", "damage", "what"),
    [
        ("sysu_mm01", duplicate("cam3/*/*.jpg", "cam3/*/*.jpg"), "file as two people"),
        ("regdb", duplicate("Visible/1/*", "Visible/2/*"), "file as two people"),
        ("llcm", lambda root: (root / "vis/0009").mkdir(), "folders: 1: vis/0009"),
        ("regdb", edit(VISIBLE, f"{FIRST} 0", f"{FIRST} 1"), "labels of 'train' do"),
        ("sysu_mm01", write("exp/rand_perm_cam.mat", "x"), "mat is damaged or of"),
        ("sysu_mm01", forget_an_image, "exp/rand_perm_cam.mat does not fit"),
    ],
)
def test_what_would_change_results_is_found(release, name, damage, what):
    root = release(name)
    damage(root)
    error = run(name, root, "--check", "--partial")
    assert "1 findings would change results" in error
    assert what in error


def test_the_same_file_twice_of_one_person_is_only_reported(release):
    root = release("regdb")
    files = sorted((root / "Thermal/1").iterdir())
    shutil.copy(files[0], files[1])
    assert run("regdb", root, "--check", "--partial") == ""
    assert rows("regdb", root)["the same file twice"].found == "1"
