"""What must not give a synthetic person away, measured on identities at random."""

import functools
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from scipy.stats import binom

from vireid_jax.synthetic import Knobs, generate, plan
from vireid_jax.synthetic import garments as g
from vireid_jax.synthetic.identity import person

pytestmark = pytest.mark.slow  # hundreds of people are drawn, many times over

IDS, IMAGES, SIZE = 80, 6, (64, 32)


class World(NamedTuple):
    images: np.ndarray
    silhouettes: np.ndarray
    lengths: np.ndarray
    identity: np.ndarray
    camera: np.ndarray
    index: np.ndarray
    visible: np.ndarray


def world(variant: str, **knobs: float) -> World:
    return _world(variant, Knobs(**knobs))


@functools.cache
def _world(variant: str, knobs: Knobs) -> World:
    specs = plan(variant, range(700, 700 + IDS), IMAGES)
    made = list(generate(specs, seed=5, size=SIZE, knobs=knobs, workers=1))
    decoded = [cv2.imdecode(np.frombuffer(data, np.uint8), 1) for _, data, _ in made]
    return World(
        np.array(decoded)[..., ::-1].astype(np.float32),
        np.array([silhouette for _, _, silhouette in made], np.float32),
        np.array([len(data) for _, data, _ in made]),
        *(
            np.array([getattr(spec, name) for spec in specs])
            for name in ("identity", "camera", "index")
        ),
        np.array([spec.modality == "visible" for spec in specs]),
    )


def rank_1_hits(features: np.ndarray, query, gallery, identity) -> int:
    """Count queries whose nearest other gallery row has their identity."""
    q, items = features[query], features[gallery]
    square = (q**2).sum(1)[:, None] - 2 * q @ items.T + (items**2).sum(1)
    square[np.flatnonzero(query)[:, None] == np.flatnonzero(gallery)] = np.inf
    return int((identity[gallery][square.argmin(1)] == identity[query]).sum())


def assert_chance(features: np.ndarray, data: World, query, gallery) -> None:
    """Fail when Rank-1 is above chance at the 99.95% point of a binomial."""
    features = features.reshape(len(features), -1).astype(np.float64)
    for modality in (data.visible, ~data.visible):  # take the modality offset out
        features[modality] -= features[modality].mean(0)
        features[modality] /= features[modality].std() + 1e-9
    hits = rank_1_hits(features, query, gallery, data.identity)
    same = data.identity[query][:, None] == data.identity[gallery]
    itself = np.flatnonzero(query)[:, None] == np.flatnonzero(gallery)
    chance = (same & ~itself).sum() / (~itself).sum()
    assert hits <= binom.isf(5e-4, query.sum(), chance), (hits, query.sum(), chance)


def directions(data: World):
    """Yield (query, gallery): across modality both ways, then within one camera."""
    yield data.visible, ~data.visible
    yield ~data.visible, data.visible
    for camera in np.unique(data.camera):
        yield data.camera == camera, data.camera == camera


def border(images: np.ndarray) -> np.ndarray:
    """Return a frame of two pixels; people rarely reach it."""
    parts = images[:, :2], images[:, :, :2], images[:, :, -2:]
    return np.concatenate([part.reshape(len(images), -1) for part in parts], 1)


def corners(images: np.ndarray) -> np.ndarray:
    """Return what is left and right of the head: background only."""
    parts = images[:, :16, :6], images[:, :16, -6:]
    return np.concatenate([part.reshape(len(images), -1) for part in parts], 1)


VARIANTS = pytest.mark.parametrize("variant", ["thermal", "nir"])


@VARIANTS
@pytest.mark.parametrize("region", [border, corners])
def test_what_surrounds_a_person_does_not_identify_them(variant, region):
    data = world(variant)
    for query, gallery in directions(data):
        assert_chance(region(data.images), data, query, gallery)


def test_the_same_measure_finds_people_by_their_silhouettes_and_clothes():
    data = world("thermal")
    with pytest.raises(AssertionError):
        assert_chance(data.silhouettes, data, data.visible, ~data.visible)
    clothes = data.images[:, 16:48, 10:22].mean((1, 2))
    with pytest.raises(AssertionError):
        assert_chance(clothes, data, data.visible, data.visible)


@VARIANTS
def test_neither_second_person_nor_occluder_identifies_them(variant):
    data = world(variant, second_person=1.0, occlusion=1.0)
    for query, gallery in directions(data):
        assert_chance(border(data.images), data, query, gallery)


@VARIANTS
def test_mean_colour_and_file_size_do_not_match_across_modalities(variant):
    data = world(variant)
    for features in (data.lengths[:, None], data.images.mean((1, 2))):
        assert_chance(features, data, data.visible, ~data.visible)
        assert_chance(features, data, ~data.visible, data.visible)


@VARIANTS
def test_every_identity_meets_every_camera_equally_often(variant):
    data = world(variant)
    counts = np.array(
        [
            np.unique(data.camera[data.identity == identity], return_counts=True)[1]
            for identity in np.unique(data.identity)
        ]
    )
    assert (counts == counts[0]).all()


@VARIANTS
def test_images_of_equal_index_are_not_the_same_moment(variant):
    data = world(variant)
    shape = (IDS, 2, IMAGES, -1)
    order = np.lexsort((data.index, ~data.visible, data.identity))
    masks = data.silhouettes[order].reshape(shape)
    masks = masks / np.linalg.norm(masks, axis=-1, keepdims=True).clip(1e-6)
    alike = np.einsum("nip,njp->nij", masks[:, 0], masks[:, 1])
    equal = np.eye(IMAGES, dtype=bool)
    gap = alike[:, equal].mean(1) - alike[:, ~equal].mean(1)
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(IDS)


def held_out_r2(inputs: np.ndarray, target: np.ndarray) -> float:
    """Fit the best linear map on one half of the people; return R^2 on the other."""
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], 1)
    half = len(inputs) // 2
    weights, *_ = np.linalg.lstsq(inputs[:half], target[:half], rcond=None)
    left = target[half:] - inputs[half:] @ weights
    return 1 - (left**2).sum() / ((target[half:] - target[half:].mean()) ** 2).sum()


@functools.cache
def tables(gap: float) -> np.ndarray:
    knobs = Knobs(modality_gap=gap)
    return np.array([person(9, identity, knobs).surfaces for identity in range(500)])


@pytest.mark.parametrize("surface", [g.TOP, g.BOTTOM, g.BAG, g.SKIN, g.HAIR])
def test_no_linear_or_quadratic_map_takes_colour_to_material(surface):
    apart, equal = tables(1.0)[:, surface], tables(0.0)[:, surface]
    rgb = apart[:, g.RGB_A]
    np.testing.assert_array_equal(rgb, equal[:, g.RGB_A])
    products = np.einsum("ni,nj->nij", rgb, rgb).reshape(-1, 9)
    for inputs in (rgb, np.concatenate([rgb, products], 1)):
        for column in (g.NIR_A, g.WARMTH):
            assert held_out_r2(inputs, apart[:, column]) < 0.05
        assert held_out_r2(inputs, equal[:, g.NIR_A]) > 0.99
        assert held_out_r2(inputs, equal[:, g.WARMTH]) < 0.05


def torso_means(data: World) -> tuple[np.ndarray, np.ndarray]:
    """Return each person's mean visible and infrared colour where the trunk is."""
    trunk = data.images[:, 16:34, 11:21].mean((1, 2))
    who = np.unique(data.identity)
    mean = lambda seen: np.array(
        [trunk[seen & (data.identity == identity)].mean(0) for identity in who]
    )
    return mean(data.visible), mean(~data.visible)[:, 0]


@VARIANTS
def test_colour_in_the_pictures_does_not_predict_infrared_at_full_gap(variant):
    assert held_out_r2(*torso_means(world(variant))) < 0.12


def test_colour_in_the_pictures_predicts_nir_when_the_gap_is_closed():
    assert held_out_r2(*torso_means(world("nir", modality_gap=0.0))) > 0.5
