"""The pipeline: the same bytes whoever decodes them, and every image counted once."""

import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from data_sets import example, png

from vireid_jax.data.pipeline import batches, eval_batches
from vireid_jax.data.pk import PKStream
from vireid_jax.data.source import index_records
from vireid_jax.training import sharding

SIZE = (16, 8)


def same(one, two):
    assert one.keys() == two.keys()
    for key in one:
        assert one[key].dtype == two[key].dtype
        np.testing.assert_array_equal(one[key], two[key])


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Six identities with 3 visible and 2 infrared images of noise, on disk."""
    path = str(tmp_path_factory.mktemp("records") / "tiny.array_record")
    writer = ArrayRecordWriter(path, "group_size:1")
    for identity in range(6):
        for shot in range(5):
            rng = np.random.default_rng((identity, shot))
            pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
            labels = {"identity": identity + 100, "modality": int(shot >= 3)}
            writer.write(example(png(pixels), f"{identity}-{shot}", **labels))
    writer.close()
    return index_records(ArrayRecordDataSource([path]), "tiny")


@pytest.fixture(scope="module")
def halves(records):
    return records.of("visible"), records.of("infrared")


@pytest.fixture(scope="module")
def stream(halves):
    return PKStream(halves[0].labels, halves[1].labels, P=2, K=2, seed=7)


@pytest.fixture(scope="module")
def reference(halves, stream):
    """Ten steps, decoded one image at a time without the pipeline."""
    out = []
    for step in range(10):
        draw = stream[step]
        images = [
            np.stack([half.image(row, SIZE) for row in rows])
            for half, rows in zip(halves, draw[:2], strict=True)
        ]
        names = "visible", "infrared", "visible_id"
        out.append(dict(zip(names, [*images, draw.labels], strict=True)))
    return out


@pytest.mark.parametrize("cache", ["none", "host"])
@pytest.mark.parametrize("threads", [0, 4, 16])
def test_threads_and_cache_change_no_byte(halves, stream, reference, threads, cache):
    found = batches(
        *halves, stream, size=SIZE, num_steps=10, threads=threads, cache=cache
    )
    for batch, expected in zip(found, reference, strict=True):
        same(batch, expected)


@pytest.mark.parametrize("start", [1, 7, 10])
def test_starting_late_is_slicing(halves, stream, reference, start):
    found = batches(
        *halves, stream, size=SIZE, start_step=start, num_steps=10 - start, threads=4
    )
    for batch, expected in zip(found, reference[start:], strict=True):
        same(batch, expected)


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_every_batch(halves, stream, reference, process_count):
    shares = [
        batches(
            *halves,
            stream,
            size=SIZE,
            num_steps=10,
            process_index=index,
            process_count=process_count,
        )
        for index in range(process_count)
    ]
    for parts, expected in zip(zip(*shares, strict=True), reference, strict=True):
        whole = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
        same(whole, expected)


def test_pretraining_takes_both_sides_from_the_visible_images(halves):
    stream = PKStream(halves[0].labels, None, P=3, K=1, seed=0)
    for step, batch in enumerate(
        batches(halves[0], None, stream, size=SIZE, num_steps=5)
    ):
        for side, rows in zip(("visible", "infrared"), stream[step][:2], strict=True):
            np.testing.assert_array_equal(batch[side], halves[0].images(rows, SIZE))
        assert (batch["visible"] != batch["infrared"]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("process_count", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 6, 12, 13])
def test_evaluation_sees_every_image_once(records, count, process_count):
    rows = np.random.default_rng(0).permutation(len(records))[:count]
    shares = [
        eval_batches(
            records,
            rows,
            size=SIZE,
            batch_size=6,
            process_index=index,
            process_count=process_count,
        )
        for index in range(process_count)
    ]
    seen, images = [], []
    for parts in zip(*shares, strict=True):
        for part in parts:
            assert part["image"].shape == (6 // process_count, *SIZE, 3)
            assert not part["image"][~part["mask"]].any()
            assert (part["row"][~part["mask"]] == -1).all()
            seen += part["row"][part["mask"]].tolist()
            images += [*part["image"][part["mask"]]]
    assert seen == rows.tolist()
    for row, image in zip(rows, images, strict=True):
        np.testing.assert_array_equal(image, records.image(row, SIZE))


def test_wrong_settings_are_refused(records, halves, stream):
    with pytest.raises(ValueError, match="4 images does not divide among 3"):
        batches(*halves, stream, size=SIZE, num_steps=1, process_count=3)
    with pytest.raises(ValueError, match="5 images does not divide among 2"):
        eval_batches(records, np.arange(3), size=SIZE, batch_size=5, process_count=2)


def test_the_next_batch_crosses_before_this_one_is_handed_out():
    drawn = []

    def batches():
        for n in range(3):
            drawn.append(n)
            yield {"visible": np.full((2, 4), n, np.uint8)}

    placed = sharding.place_ahead(batches(), sharding.make_mesh())
    for n, ahead in enumerate([[0, 1], [0, 1, 2], [0, 1, 2]]):
        np.testing.assert_array_equal(next(placed)["visible"], np.full((2, 4), n))
        assert drawn == ahead
    assert next(placed, None) is None
