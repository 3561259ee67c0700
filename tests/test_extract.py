"""A folder's embeddings in a file: in order, the same after any interruption."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_embedder import NAMES, SIZE, embedder_of, fill

from vireid_jax.embed import folder
from vireid_jax.embed.embedder import Embedder
from vireid_jax.embed.feature_files import read_features
from vireid_jax.embed.folder import extract, list_images


@pytest.fixture(scope="module")
def embedder():
    return embedder_of()


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


@pytest.mark.mistakes("images")
def test_what_cannot_be_read_is_listed_and_left_out(
    embedder, images, refuses, tmp_path
):
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

    none = tmp_path / "n.npz"
    refuses(
        "an image that cannot be read, with `--unreadable refuse`",
        lambda: extract(embedder, images, "visible", none, unreadable="refuse"),
        "0.png cannot be",
        "nothing was written",
    )
    assert not none.exists()
    for name in why:
        (images / name).unlink()
    assert extract(embedder, images, "visible", out) == {}
    assert not (tmp_path / "found.npz.unreadable.txt").exists()


def test_images_of_any_mode_become_what_the_docs_say(embedder, tmp_path):
    rng = np.random.default_rng(1)
    folder = tmp_path / "images"
    folder.mkdir()
    counts = rng.integers(27_000, 31_000, (80, 40), np.uint16)  # as a thermal camera's
    for name in ("deep.png", "deep.tiff"):
        Image.fromarray(counts).save(folder / name)
    low, high = np.percentile(counts, [1, 99])
    expected = np.clip((counts - low) / (high - low), 0, 1) * 255
    expected = np.rint(expected).astype(np.uint8)
    Image.fromarray(expected).save(folder / "grey.bmp")
    Image.fromarray(np.dstack([expected] * 3)).save(folder / "rgb.png")
    clear = np.dstack([expected] * 3 + [np.zeros_like(expected)])
    Image.fromarray(clear).save(folder / "clear.png")  # nothing of it is to be seen
    bomb = Image.new("1", (40_000, 40_000))
    bomb.save(folder / "bomb.png")
    out = tmp_path / "found.npz"
    why = extract(embedder, folder, "infrared", out)
    assert list(why) == ["bomb.png"]
    assert "has more than 50,000,000 pixels" in why["bomb.png"]
    found = read_features(out)
    names = ["clear.png", "deep.png", "deep.tiff", "grey.bmp", "rgb.png"]
    assert found.filename == names
    grey, *others = found.features
    for one in others:
        np.testing.assert_allclose(one, others[0], atol=1e-4)  # a level rounded
        assert np.abs(one - grey).max() > 0.01
    # Seen through to the ground of mid grey.
    flat = embedder.embed(np.full((1, *SIZE, 3), 128, np.uint8), "infrared")
    np.testing.assert_allclose(grey, flat[0], atol=1e-6)


def test_images_that_change_under_way_leave_a_complete_file(
    embedder, images, tmp_path, monkeypatch
):
    out, write = tmp_path / "found.npz", folder.write_features
    extract(embedder, images, "visible", out)
    before = out.read_bytes()

    def write_late(*arguments):
        (images / "a/1.png").write_text("half of an ima")
        write(*arguments)

    monkeypatch.setattr(folder, "write_features", write_late)
    assert extract(embedder, images, "visible", out) == {}
    assert out.read_bytes() == before


def test_other_files_in_the_folder_of_the_work_stay(embedder, images, tmp_path):
    out, partial = tmp_path / "found.npz", tmp_path / "found.npz.partial"
    (partial / "mine").mkdir(parents=True)
    (partial / "mine/features.f32").write_text("of mine")
    extract(embedder, images, "visible", out)
    assert [path.name for path in partial.iterdir()] == ["mine"]
    assert (partial / "mine/features.f32").read_text() == "of mine"


# Dies (SIGKILL) before its N-th rename of a new file, or not at all.
SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from small_embedder import embedder_of
from vireid_jax.embed import folder
folder.BATCHES_A_SAVE = 1
rename, left = os.replace, [int(sys.argv[2])]
def dying(*arguments):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*arguments)
os.replace = dying
folder.extract(embedder_of(), Path(sys.argv[3]), "visible", Path(sys.argv[4]))
"""


@pytest.mark.slow  # four processes, each with the start of jax
def test_killed_and_run_again_it_gives_the_same_file(tmp_path):
    images = fill(tmp_path / "images", [f"{n:02}.png" for n in range(18)])
    (images / "05.png").write_text("no image")
    command = [sys.executable, "-c", SCRIPT, Path(__file__).parent]

    def run(count, out):
        arguments = [*command, count, images, out]
        return subprocess.run([*map(str, arguments)], check=False).returncode

    undisturbed, out = tmp_path / "one.npz", tmp_path / "two.npz"
    partial = tmp_path / "two.npz.partial"
    done = lambda: json.loads((partial / "progress.json").read_text())["images"]
    assert run(0, undisturbed) == 0
    assert run(3, out) == -signal.SIGKILL  # of 5 batches, two are done
    assert done() == 8
    rows = partial / "features.f32"
    assert rows.stat().st_size >= 7 * 8 * 4
    with rows.open("ab") as file:
        file.write(b"half a row")
    # 3 batches are left: the fourth rename is that of the complete file.
    assert run(4, out) == -signal.SIGKILL
    assert not out.exists()
    assert done() == 18
    assert run(0, out) == 0
    assert undisturbed.read_bytes() == out.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "images",
        *("one.npz", "one.npz.unreadable.txt"),
        *("two.npz", "two.npz.unreadable.txt"),
    ]


def test_work_on_other_files_or_by_another_network_starts_again(
    embedder, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(folder, "BATCHES_A_SAVE", 1)
    monkeypatch.setattr(folder, "write_features", lambda *_: 1 / 0)
    out, read = tmp_path / "found.npz", []
    stream = Embedder.embed_stream
    counting = lambda *a: (read.append(batch) or batch for batch in stream(*a))
    monkeypatch.setattr(Embedder, "embed_stream", counting)

    def embeds(network):
        read.clear()
        with pytest.raises(ZeroDivisionError):
            extract(network, images, "visible", out)
        return sum(len(batch.indices) for batch in read)

    assert [embeds(embedder), embeds(embedder)] == [5, 0]
    rows = tmp_path / "found.npz.partial/features.f32"
    content = rows.read_bytes()
    rows.write_bytes(content[:100])  # the disk was full
    assert embeds(embedder) == 5
    assert rows.read_bytes() == content
    rows.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert embeds(embedder) == 5
    os.utime(images / "é<b>.png", (0, 0))
    assert embeds(embedder) == 5
    assert embeds(embedder_of(1)) == 5
    assert embeds(embedder_of(flip=False)) == 5


@pytest.mark.mistakes("images")
class TestMistakes:
    def test_a_folder_must_hold_images(self, refuses, tmp_path):
        none = lambda: list_images(tmp_path / "none")
        refuses("a folder that is not there", none, "there is no folder")
        (tmp_path / "a.txt").write_text("text")
        empty = lambda: list_images(tmp_path)
        refuses("a folder without images", empty, "has no image; valid suffixes: .png")

    def test_a_link_out_of_the_folder_is_refused(self, images, refuses, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
        (images / "link.png").symlink_to(tmp_path / "secret.png")
        refuses(
            "a link to a file outside the folder",
            lambda: list_images(images),
            "link.png links to DIR/secret.png",
        )
        (images / "link.png").unlink()
        (images / "inner.png").symlink_to(images / "b.jpg")
        (images / "loop").symlink_to(images)
        assert list_images(images) == sorted([*NAMES, "inner.png"])

    def test_a_link_to_nothing_is_reported_and_a_pipe_is_not_read(
        self, embedder, images, tmp_path
    ):
        (images / "gone.png").symlink_to("nothing.png")
        os.mkfifo(images / "pipe.png")
        why = extract(embedder, images, "visible", tmp_path / "a.npz")
        assert list(why) == ["gone.png"]
        assert "No such file" in why["gone.png"]

    @pytest.mark.parametrize("name", [b"caf\xe9.png", b"a\nb.png", b"\x1b[2J.png"])
    def test_a_name_that_no_line_can_hold_is_refused(self, images, name):
        (images / os.fsdecode(name)).write_bytes((images / "a/1.png").read_bytes())
        with pytest.raises(ValueError, match=r"rename .* is no UTF-8"):
            list_images(images)

    def test_two_at_once_do_not_write_one_file(
        self, embedder, images, refuses, tmp_path
    ):
        partial = tmp_path / "a.npz.partial"
        partial.mkdir()
        with (partial / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            refuses(
                "two processes on one file",
                lambda: extract(embedder, images, "visible", tmp_path / "a.npz"),
                "another process is writing DIR/a.npz",
            )
        assert extract(embedder, images, "visible", tmp_path / "a.npz") == {}

    def test_a_folder_of_nothing_readable_is_refused(self, embedder, refuses, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in/a.png").write_text("no image")
        refuses(
            "a folder of images that cannot be read",
            lambda: extract(embedder, tmp_path / "in", "visible", tmp_path / "a.npz"),
            "none of the 1 images",
            "a.png cannot be",
        )

    @pytest.mark.parametrize(
        ("title", "out", "reason"),
        [
            ("features in a file of no known kind", "a.csv", "suffix is one of ['.npz"),
            ("features in a folder that is not there", "no/a.npz", "there is no folde"),
            ("features in place of a folder", "b.npz", "is a folder; give a file's"),
        ],
    )
    def test_a_place_that_cannot_be_is_refused(
        self, title, out, reason, embedder, images, refuses, tmp_path
    ):
        (tmp_path / "b.npz").mkdir()
        action = lambda: extract(embedder, images, "visible", tmp_path / out)
        refuses(title, action, reason)

    def test_a_file_of_anything_else_is_no_feature_file(self, refuses, tmp_path):
        refuses(
            "a file of features that is not there",
            lambda: read_features(tmp_path / "a.npz"),
            "no file",
            "vireid_jax.extract",
        )
        (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and more")
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        np.savez(tmp_path / "b.npz", features=np.zeros((1, 2), np.float32))
        about = {"network": "", "modality": "visible", "folder": "", "dim": 2}
        features = np.zeros((1, 2), np.float32)
        odd = {
            "c.npz": (features, ["a", "b"], about),
            "d.npz": (features, ["a"], {"dim": 2}),
            "e.npz": (features, [7], about),
            "f.npz": (features, ["a"], about | {"folder": 7}),
            "g.npz": (features, ["a"], about | {"modality": "depth"}),
            "h.npz": (features * np.nan, ["a"], about),
            "i.npz": (features, ["a"], []),
        }
        for name, (rows, filename, told) in odd.items():
            np.savez(
                tmp_path / name,
                features=rows,
                filename=np.array(filename),
                about=np.array(json.dumps(told)),
            )
        loose = pa.table({"filename": ["a"], "features": [[0.0, 1.0]]})
        loose = loose.replace_schema_metadata({"about": json.dumps(about)})
        pq.write_table(loose, tmp_path / "j.parquet")
        with (tmp_path / "k.npz").open("wb") as file:
            np.save(file, features)
        names = ("a.npz", "a.parquet", "b.npz", *odd, "j.parquet", "k.npz")
        for name in names:
            with pytest.raises(ValueError, match="is no feature file"):
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
        with pytest.raises(ValueError, match="outside the folder"):
            read_features(tmp_path / "a.npz")
