"""A folder's embeddings in a file: whole, in order, the same after any interruption."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_run import Small

from vireid_jax import extract as extracting
from vireid_jax.embedder import Embedder
from vireid_jax.extract import extract, list_images
from vireid_jax.feature_files import read_features

SIZE = (64, 32)
NAMES = ["a/1.png", "a/2.bmp", "b.jpg", "c d.tiff", "é<b>.png"]


def embedder_of(seed=0, **changes):
    """Makes a stem and a head with random weights."""
    model = Small(3)
    images = jnp.zeros((1, 2, *SIZE, 3))
    key = jax.random.key(seed)
    variables = model.init(key, images, ("visible", "infrared"), train=True)
    options = {"size": SIZE, "batch_size": 4, "about": {"step": 7}} | changes
    return Embedder(model, dict(variables), **options)


@pytest.fixture(scope="module")
def embedder():
    return embedder_of()


def fill(folder, names=NAMES):
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shape = (50 + number, 30, 3)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def images(tmp_path):
    return fill(tmp_path / "images")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_the_file_has_each_image_in_order(embedder, images, tmp_path, suffix):
    out = tmp_path / f"found{suffix}"
    assert extract(embedder, images, "infrared", out) == {}
    found = read_features(out)
    assert found.filename == sorted(NAMES)
    expected = embedder.embed([images / name for name in sorted(NAMES)], "infrared")
    np.testing.assert_array_equal(found.features, expected)
    assert found.about["modality"] == "infrared"
    assert found.about["network"] == embedder.fingerprint
    assert found.about["folder"] == str(images)
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name, "images"]
    if suffix == ".parquet":
        table = pq.read_table(out)
        assert table.column("modality").to_pylist() == [1] * 5
        features = np.stack(table.column("features").to_numpy())
    else:
        with np.load(out, allow_pickle=False) as file:
            assert file["modality"].tolist() == [1] * 5
            features = file["features"]
    np.testing.assert_array_equal(features, expected)


def test_what_cannot_be_read_is_listed_and_left_out(embedder, images, tmp_path):
    (images / "a/0.png").write_text("no image")
    (images / "b.jpg").write_bytes((images / "b.jpg").read_bytes()[:-60])
    frames = [Image.new("L", (8, 8), grey) for grey in (0, 200)]
    frames[0].save(images / "z.webp", save_all=True, append_images=frames[1:])
    out = tmp_path / "found.npz"
    why = extract(embedder, images, "visible", out)
    assert list(why) == ["a/0.png", "b.jpg", "z.webp"]
    assert "is a truncated JPEG" in why["b.jpg"]
    assert "holds 2 images" in why["z.webp"]
    found = read_features(out)
    assert found.filename == [name for name in sorted(NAMES) if name != "b.jpg"]
    expected = embedder.embed([images / name for name in found.filename], "visible")
    np.testing.assert_allclose(found.features, expected, atol=1e-5)
    lines = (tmp_path / "found.npz.unreadable.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == list(why)

    with pytest.raises(ValueError, match=r"0\.png is nothing .*nothing was written"):
        extract(embedder, images, "visible", tmp_path / "n.npz", unreadable="refuse")
    assert not (tmp_path / "n.npz").exists()
    for name in why:
        (images / name).unlink()
    assert extract(embedder, images, "visible", out) == {}
    assert not (tmp_path / "found.npz.unreadable.txt").exists()


# Dies (SIGKILL) as it begins to write the third part, or not at all.
SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_extract import embedder_of
from vireid_jax import extract as extracting
extracting.BATCHES_A_PART = 1
write, left = extracting._write_part, [int(sys.argv[2])]
def dying(*arguments):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments)
extracting._write_part = dying
extracting.extract(embedder_of(), Path(sys.argv[3]), "visible", Path(sys.argv[4]))
"""


@pytest.mark.slow  # three processes, each with the start of jax
def test_killed_and_run_again_it_gives_the_same_file(tmp_path):
    images = fill(tmp_path / "images", [f"{n:02}.png" for n in range(18)])
    (images / "05.png").write_text("no image")
    command = [sys.executable, "-c", SCRIPT, Path(__file__).parent]

    def run(place, out):
        arguments = [*command, place, images, out]
        return subprocess.run([*map(str, arguments)], check=False).returncode

    whole, again = tmp_path / "whole.npz", tmp_path / "again.npz"
    assert run(0, whole) == 0
    assert run(3, again) == -signal.SIGKILL
    assert not again.exists()
    assert len(list((tmp_path / "again.npz.parts").iterdir())) == 2
    assert run(4, again) == 0  # 5 parts, 2 of them were there
    assert whole.read_bytes() == again.read_bytes()


def test_parts_of_other_files_or_of_another_network_are_made_anew(
    embedder, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(extracting, "BATCHES_A_PART", 1)
    monkeypatch.setattr(extracting, "write_features", lambda *_: 1 / 0)
    out, read = tmp_path / "found.npz", []
    stream = Embedder.embed_stream
    counting = lambda *a: (read.append(batch) or batch for batch in stream(*a))
    monkeypatch.setattr(Embedder, "embed_stream", counting)

    def embeds(network):
        read.clear()
        with pytest.raises(ZeroDivisionError):
            extract(network, images, "visible", out)
        return sum(len(batch.places) for batch in read)

    assert [embeds(embedder), embeds(embedder)] == [5, 0]
    os.utime(images / "é<b>.png", (0, 0))
    assert embeds(embedder) == 1
    assert embeds(embedder_of(1)) == 5
    assert embeds(embedder_of(flip=False)) == 5


class TestMistakes:
    def test_a_folder_must_hold_images(self, tmp_path):
        with pytest.raises(ValueError, match="there is no folder"):
            list_images(tmp_path / "none")
        (tmp_path / "a.txt").write_text("text")
        with pytest.raises(ValueError, match=r"has no image; looked for \.png"):
            list_images(tmp_path)

    def test_a_link_out_of_the_folder_is_refused(self, images, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
        (images / "link.png").symlink_to(tmp_path / "secret.png")
        with pytest.raises(ValueError, match=r"link\.png is a link to .*secret\.png"):
            list_images(images)
        (images / "link.png").unlink()
        (images / "inner.png").symlink_to(images / "b.jpg")
        assert "inner.png" in list_images(images)

    def test_a_folder_of_nothing_readable_is_refused(self, embedder, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in/a.png").write_text("no image")
        with pytest.raises(ValueError, match=r"none of the 1 images .*a\.png is noth"):
            extract(embedder, tmp_path / "in", "visible", tmp_path / "a.npz")

    def test_a_place_that_cannot_be_is_refused(self, embedder, images, tmp_path):
        with pytest.raises(ValueError, match=r"suffix is one of \['\.npz'"):
            extract(embedder, images, "visible", tmp_path / "a.csv")
        with pytest.raises(ValueError, match="no such folder"):
            extract(embedder, images, "visible", tmp_path / "no" / "a.npz")

    def test_a_file_of_anything_else_is_no_feature_file(self, tmp_path):
        with pytest.raises(ValueError, match=r"no file .*vireid_jax\.extract"):
            read_features(tmp_path / "a.npz")
        (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and more")
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        np.savez(tmp_path / "b.npz", features=np.zeros((1, 2), np.float32))
        about = {"network": "", "modality": "visible", "folder": "", "dim": 2}
        features = np.zeros((1, 2), np.float32)
        for name, filename, told in (
            ("c.npz", ["a", "b"], about),
            ("d.npz", ["a"], {"dim": 2}),
        ):
            np.savez(
                tmp_path / name,
                features=features,
                filename=np.array(filename),
                about=np.array(json.dumps(told)),
            )
        for name in ("a.npz", "a.parquet", "b.npz", "c.npz", "d.npz"):
            with pytest.raises(ValueError, match="is no file of features"):
                read_features(tmp_path / name)

    @pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "b/../../a.png"])
    def test_names_that_lead_outside_are_refused(self, tmp_path, name):
        about = {"network": "", "modality": "visible", "folder": "", "dim": 2}
        np.savez(
            tmp_path / "a.npz",
            features=np.zeros((1, 2), np.float32),
            filename=np.array([name]),
            about=np.array(json.dumps(about)),
        )
        with pytest.raises(ValueError, match="outside its folder"):
            read_features(tmp_path / "a.npz")
