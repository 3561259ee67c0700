"""Augmentation: each part against its law, and the same on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from python_process import run_python

from vireid_jax.data import augment as augmentation
from vireid_jax.data.augment import ERASED_AREA, ERASED_ASPECT, normalise, third_view

augment = jax.jit(augmentation.augment, static_argnames="pad")
H, W = 32, 16
OFF = {"pad": 0, "flip": 0.0, "erase": 0.0}
KEY = jax.random.key(5)


def noise(batch, height=H, width=W):
    rng = np.random.default_rng(0)
    # From 1: black pixels then are padding and nothing else.
    return jnp.asarray(rng.integers(1, 256, (batch, height, width, 3), np.uint8))


def pixels(normalised):
    """Undo the normalisation, back to uint8."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return np.round((np.asarray(normalised) * std + mean) * 255).astype(np.uint8)


def changed(normalised, images):
    """Say of every image whether it differs from its plain normalisation."""
    gap = np.abs(np.asarray(normalised) - np.asarray(normalise(images)))
    return gap.max(axis=(1, 2, 3)) > 1e-5


def test_normalise_is_torchvisions():
    images = noise(2)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = (np.asarray(images, np.float64) / 255 - mean) / std
    found = normalise(images)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_everything_off_is_normalisation():
    images = noise(64)
    found = augment(KEY, images, **OFF)
    np.testing.assert_allclose(found, normalise(images), atol=1e-6)


def test_crop_is_a_window_of_the_padded_image():
    pad, images = 3, noise(200)
    found = pixels(augment(KEY, images, **OFF | {"pad": pad}))
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    shifts = []
    for image, whole in zip(found, padded, strict=True):
        fits = [
            (y, x)
            for y in range(2 * pad + 1)
            for x in range(2 * pad + 1)
            if np.array_equal(whole[y : y + H, x : x + W], image)
        ]
        assert len(fits) == 1
        shifts += fits
    # 200 draws of 49 windows: every row and column shift occurs, up to the pad itself.
    for axis in (0, 1):
        assert {shift[axis] for shift in shifts} == set(range(2 * pad + 1))


def test_flip_mirrors_left_to_right_and_is_an_involution():
    images = noise(64)
    always = OFF | {"flip": 1.0}
    once = pixels(augment(KEY, images, **always))
    np.testing.assert_array_equal(once, np.asarray(images)[:, :, ::-1])
    twice = pixels(augment(KEY, jnp.asarray(once), **always))
    np.testing.assert_array_equal(twice, images)


@pytest.mark.parametrize("part", ["flip", "erase"])
def test_probabilities_are_met(part):
    n, p = 2000, 0.3
    images = noise(n, 8, 4)
    rate = np.mean(changed(augment(KEY, images, **OFF | {part: p}), images))
    assert abs(rate - p) < 5 * np.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("shape", [(64, 32), (32, 64)])
def test_erasing_fills_one_rectangle_of_legal_size_with_zero(shape):
    images = noise(300, *shape)
    found = np.asarray(augment(KEY, images, **OFF | {"erase": 1.0}))
    plain = np.asarray(normalise(images))
    areas, corners = [], set()
    for image, before in zip(found, plain, strict=True):
        erased = (image == 0).all(axis=-1)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        tall, wide = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert erased.sum() == tall * wide  # a full rectangle
        np.testing.assert_allclose(image[~erased], before[~erased], atol=1e-6)
        # Sides are rounded to pixels: allow half a pixel on each.
        low = (tall - 0.5) * (wide - 0.5) / erased.size
        high = (tall + 0.5) * (wide + 0.5) / erased.size
        assert high >= ERASED_AREA[0]
        assert low <= ERASED_AREA[1]
        assert (tall + 0.5) / (wide - 0.5) >= ERASED_ASPECT[0]
        assert (tall - 0.5) / (wide + 0.5) <= ERASED_ASPECT[1]
        areas.append(erased.mean())
        corners.add((rows[0], columns[0]))
    assert min(areas) < 0.06
    assert max(areas) > 0.34
    assert len(corners) > 150
    # It reaches every row and every column.
    reached = (found == 0).all(axis=-1).any(axis=0)
    assert reached.any(axis=0).all()
    assert reached.any(axis=1).all()


def test_third_view_copies_one_channel_of_each_image():
    images = np.asarray(noise(100))
    found = np.asarray(third_view(KEY, jnp.asarray(images)))
    assert found.dtype == np.uint8
    chosen = []
    for image, view in zip(images, found, strict=True):
        same = [
            c
            for c in range(3)
            if np.array_equal(view, np.stack([image[..., c]] * 3, axis=-1))
        ]
        assert len(same) == 1
        chosen += same
    counted = np.bincount(chosen, minlength=3)
    assert counted.min() > 33 - 5 * 4.7  # binomial, deviation 4.7


def test_parts_draw_their_own_numbers():
    images = noise(64)
    flipped = augment(KEY, images, **OFF | {"flip": 0.5})
    erased = augment(KEY, images, **OFF | {"erase": 0.5})
    both = augment(KEY, images, **OFF | {"flip": 0.5, "erase": 0.5})
    # Erasing comes last, so where nothing is erased the flip is what it was alone.
    untouched = ~changed(erased, images)
    np.testing.assert_array_equal(both[untouched], flipped[untouched])
    # Independent: all four combinations occur among 64 images.
    mirrored = changed(flipped, images)
    assert len({*zip(mirrored.tolist(), untouched.tolist(), strict=True)}) == 4


def test_the_key_decides():
    images = noise(64)
    some = OFF | {"flip": 0.5, "erase": 0.5}
    one, other = (augment(jax.random.key(seed), images, **some) for seed in (1, 2))
    np.testing.assert_array_equal(one, augment(jax.random.key(1), images, **some))
    assert not np.array_equal(one, other)


def test_an_image_is_augmented_alike_in_a_batch_of_any_size():
    images = noise(64)
    some = OFF | {"flip": 0.5, "erase": 0.5}
    np.testing.assert_allclose(
        augment(KEY, images, **some)[:5], augment(KEY, images[:5], **some), atol=1e-6
    )


def test_changing_a_probability_compiles_nothing():
    step = jax.jit(
        lambda key, x, flip, erase: augmentation.augment(
            key, x, pad=0, flip=flip, erase=erase
        )
    )
    images = noise(64)
    for p in (0.0, 0.3, 1.0):
        found = step(KEY, images, p, 1 - p)
        expected = augment(KEY, images, pad=0, flip=p, erase=1 - p)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert step._cache_size() == 1


ON_FOUR_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from vireid_jax.data.augment import augment, third_view

def both(key, images):
    return augment(key, images, pad=2), third_view(key, images)

assert jax.device_count() == 4
images = np.random.default_rng(0).integers(0, 256, (16, 32, 16, 3), np.uint8)
key = jax.random.key(1)
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
rows = NamedSharding(mesh, PartitionSpec("data"))
spread = jax.jit(both, out_shardings=(rows, rows))
split = jax.device_put(images, rows)
program = spread.lower(key, split).compile().as_text()
for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
    assert word not in program, word
for many, one in zip(spread(key, split), jax.jit(both)(key, images), strict=True):
    assert len(many.sharding.device_set) == 4
    np.testing.assert_allclose(many, one, atol=1e-6)
"""


@pytest.mark.slow  # a process of its own, with four devices to compile for
def test_four_devices_augment_as_one_does_and_exchange_nothing():
    environment = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    done = run_python("-c", ON_FOUR_DEVICES, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
