"""Two images: the cosine, and what the thresholds in a checkpoint make of it."""

import pytest
from small_embedder import embedder_of, fill

from vireid_jax.compare import sentence
from vireid_jax.embed.thresholds import compare_images
from vireid_jax.training.run_info import RunInfo

MODALITIES = ("visible", "infrared")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def pair(images):
    return images / "b.jpg", images / "a/1.png"


def with_thresholds(cosine):
    """Make a network that takes pairs from this cosine on as one identity."""
    rates = {"0.1": cosine - 0.1, "0.01": cosine}
    kind = {"thresholds": rates, "true_match_rates": {"0.1": 0.9, "0.01": None}}
    thresholds = {"visible-infrared": kind, "visible-visible": {"thresholds": {}}}
    about = RunInfo(config={}, num_classes=3, thresholds=thresholds)
    return embedder_of(about=about)


def test_the_cosine_is_that_of_the_embeddings_in_either_order(pair):
    embedder = embedder_of()
    found = compare_images(embedder, pair, MODALITIES)
    one, two = map(embedder.embed, pair, MODALITIES)
    assert found.cosine == pytest.approx(float((one @ two.T)[0, 0]), abs=1e-6)
    turned = compare_images(embedder, pair[::-1], MODALITIES[::-1])
    assert turned.cosine == pytest.approx(found.cosine, abs=1e-6)
    assert found.same is None
    assert "No verdict" in sentence(found)


def test_the_verdict_turns_at_the_threshold(pair):
    cosine = compare_images(embedder_of(), pair, MODALITIES).cosine
    below, above = (
        compare_images(with_thresholds(cosine + shift), pair, MODALITIES)
        for shift in (-1e-3, 1e-3)
    )
    assert (below.same, above.same) == (True, False)
    assert sentence(below).startswith(f"same: cosine {cosine:.3f}, threshold")
    assert sentence(above).startswith("different: ")
    loose = compare_images(with_thresholds(cosine + 1e-3), pair, MODALITIES, 0.1)
    assert loose.same
    assert loose.true_match_rate == 0.9
    assert "10% of pairs of two people reach and 90% of pairs" in sentence(loose)


@pytest.mark.mistakes("images")
def test_a_rate_without_a_threshold_is_refused(pair, refuses):
    embedder = with_thresholds(0.5)
    refuses(
        "a false-match rate without a threshold",
        lambda: compare_images(embedder, pair, MODALITIES, 0.2),
        "is 0.2, ",
        "valid values: [0.01, 0.1]",
    )
    refuses(
        "a pair of modalities without thresholds",
        lambda: compare_images(embedder, pair, ("visible", "visible"), 0.01),
        "visible-visible pairs: it has none",
    )
    assert compare_images(embedder, pair, ("visible", "visible")).same is None
    with pytest.raises(ValueError, match="it has none"):
        compare_images(embedder_of(), pair, MODALITIES, 0.01)


@pytest.mark.mistakes("images")
def test_an_image_that_cannot_be_read_is_named(pair, refuses, tmp_path):
    images = (pair[0], tmp_path / "none.png")
    refuses(
        "an image that is not there",
        lambda: compare_images(embedder_of(), images, MODALITIES),
        "none.png: No such file",
    )
