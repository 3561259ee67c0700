"""The train step as a function: pure, compiled once, donated; and the embed step.

The network is a stand-in of two layers that keeps the contract of the real one, so that
compiling is quick; the real one meets the step in test_train and test_multi_device.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vireid_jax.config import default_config
from vireid_jax.data import augment
from vireid_jax.embed.embedder import images_at_once
from vireid_jax.losses import (
    accuracy,
    cross_entropy,
    cross_modal_infonce,
    hetero_center_triplet,
)
from vireid_jax.models.heads import IdentityHead, l2_normalise
from vireid_jax.models.views import columns_by_modality
from vireid_jax.training.optimizer import make_optimizer, rate_factors
from vireid_jax.training.state import TrainState
from vireid_jax.training.step import (
    BatchViews,
    Schedule,
    make_coefficients,
    make_embed_step,
    make_train_step,
    make_views,
    total_loss,
)

CONFIG = default_config()
CONFIG.loss.infonce = 0.3
BATCH, SIZE, CLASSES = 4, (16, 8), 6


class Stub(nn.Module):
    """One convolution a modality, then the real head."""

    @nn.compact
    def __call__(self, images, views, train=False):
        batch = images.shape[0]
        maps = []
        for modality, columns in columns_by_modality(views).items():
            rows = images[:, columns].reshape(-1, *images.shape[2:])
            rows = nn.relu(nn.Conv(8, (3, 3), strides=2, name=modality)(rows))
            maps.append(rows.reshape(batch, -1, *rows.shape[1:]))
        maps = jnp.concatenate(maps, axis=1)
        head = IdentityHead(CLASSES, name="head")
        rows = maps.reshape(-1, *maps.shape[2:])
        out = head(rows, views, train)
        out = {k: x.reshape(batch, -1, x.shape[-1]) for k, x in out.items()}
        return l2_normalise(out["neck"]), out


def batch_of(seed=0):
    rng = np.random.default_rng(seed)
    labels = jnp.array([1, 1, 4, 4], jnp.int32)
    image = lambda: jnp.asarray(rng.integers(0, 256, (BATCH, *SIZE, 3), np.uint8))
    return {"visible": image(), "infrared": image(), "visible_id": labels}


OPTIMIZER = make_optimizer(CONFIG)


@pytest.fixture(scope="module")
def variables():
    images = jnp.zeros((1, 2, *SIZE, 3))
    views = ("visible", "infrared")
    init = jax.jit(lambda key: Stub().init(key, images, views, train=True))
    return init(jax.random.key(0))


def fresh_state(variables):
    """Return a state of its own, which may be donated."""
    params, batch_stats = jax.tree.map(
        jnp.copy, (variables["params"], variables["batch_stats"])
    )
    return TrainState(
        jnp.zeros((), jnp.int32), params, batch_stats, OPTIMIZER.init(params)
    )


@pytest.fixture(scope="module")
def train_step(variables):
    factors = rate_factors(variables["params"], True, 0.5)
    step = make_train_step(
        Stub(), OPTIMIZER, factors, BatchViews(pad=2, third_view=True)
    )
    return jax.jit(step, donate_argnums=0)


KEY = jax.random.key(3)
COEFFICIENTS = make_coefficients(CONFIG)
SCHEDULE = Schedule(jnp.full(8, 1e-3), jnp.full(8, 0.5))
NUMBERS = (COEFFICIENTS, SCHEDULE)


def same_bits(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_a_step_is_a_pure_function(train_step, variables):
    runs = []
    for _ in range(2):
        state, history = fresh_state(variables), []
        for n in range(3):
            state, metrics = train_step(state, batch_of(n), KEY, *NUMBERS)
            history.append(metrics)
        runs.append(jax.device_get((state, history)))
    same_bits(*runs)
    assert runs[0][0].step == 3
    losses = [float(metrics["loss"]) for metrics in runs[0][1]]
    assert len(set(losses)) == 3


def test_every_part_of_the_state_moves(train_step, variables):
    before = fresh_state(variables)
    after, _ = train_step(fresh_state(variables), batch_of(), KEY, *NUMBERS)
    for part in ("params", "batch_stats", "opt_state"):
        old, new = (jax.tree.leaves(getattr(s, part)) for s in (before, after))
        assert all((a != b).any() for a, b in zip(old, new, strict=True)), part


def test_each_step_draws_its_own_numbers(train_step, variables):
    state = fresh_state(variables)._replace(step=jnp.int32(1))
    _, later = train_step(state, batch_of(), KEY, *NUMBERS)
    _, first = train_step(fresh_state(variables), batch_of(), KEY, *NUMBERS)
    _, other = train_step(
        fresh_state(variables), batch_of(), jax.random.key(4), *NUMBERS
    )
    losses = {float(metrics["loss"]) for metrics in (first, later, other)}
    assert len(losses) == 3


def test_no_gradient_is_carried_from_step_to_step(train_step, variables):
    """What a step reports does not depend on the steps before it, only on the state."""
    state, _ = train_step(fresh_state(variables), batch_of(), KEY, *NUMBERS)
    copy = jax.tree.map(jnp.copy, state)
    _, one = train_step(state, batch_of(1), KEY, *NUMBERS)
    train_step(fresh_state(variables), batch_of(5), KEY, *NUMBERS)
    _, two = train_step(copy, batch_of(1), KEY, *NUMBERS)
    same_bits(jax.device_get(one), jax.device_get(two))


def test_coefficients_and_rates_do_not_recompile_and_all_matter(train_step, variables):
    usual_state, usual = train_step(fresh_state(variables), batch_of(), KEY, *NUMBERS)
    compiled = train_step._cache_size()
    # These are for students and for parts.
    others = {"distillation", "parts", "soft_target", "softness", "imitation"}
    for name in set(COEFFICIENTS._fields) - others:
        value = {"flip": 0.0, "erase": 1.0}.get(name, 1.5 * getattr(COEFFICIENTS, name))
        changed = COEFFICIENTS._replace(**{name: value}), SCHEDULE
        _, metrics = train_step(fresh_state(variables), batch_of(), KEY, *changed)
        assert metrics["loss"] != usual["loss"], name
    rates = SCHEDULE._replace(learning_rate=jnp.full(8, 2e-3))
    faster = train_step(fresh_state(variables), batch_of(), KEY, COEFFICIENTS, rates)[0]
    kernel = lambda s: s.params["head"]["classifier"]["kernel"]
    assert (kernel(faster) != kernel(usual_state)).any()
    assert train_step._cache_size() == compiled


def test_a_step_takes_the_rate_of_its_number(train_step, variables):
    rates = SCHEDULE._replace(learning_rate=jnp.array([0.0, 1e-3] + [0.0] * 6))
    move = lambda step: (
        train_step(
            fresh_state(variables)._replace(step=jnp.int32(step)),
            *(batch_of(), KEY, COEFFICIENTS, rates),
        )[0].params
    )
    still, moved = move(0), move(1)
    same_bits(still, variables["params"])
    assert not np.array_equal(*(jax.tree.leaves(x)[0] for x in (still, moved)))


def test_the_state_is_donated(train_step, variables):
    state = fresh_state(variables)
    train_step(state, batch_of(), KEY, *NUMBERS)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.opt_state))


def test_pretrained_stages_move_at_their_share_of_the_rate(variables):
    """With plain gradients as directions, half the factor is half the way."""
    moves = []
    for factor in (1.0, 0.5):
        factors = rate_factors(variables["params"], True, factor)
        config = default_config()
        config.optimizer.name, config.optimizer.weight_decay = "sgd", 0.0
        optimizer = make_optimizer(config)
        step = jax.jit(make_train_step(Stub(), optimizer, factors, BatchViews(pad=0)))
        params = variables["params"]
        rates = SCHEDULE._replace(learning_rate=jnp.full(8, 0.1))
        state = TrainState(
            jnp.int32(0), params, variables["batch_stats"], optimizer.init(params)
        )
        after, _ = step(state, batch_of(), KEY, COEFFICIENTS, rates)
        moves.append(jax.tree.map(lambda a, b: a - b, after.params, params))
    for name, ratio in (("visible", 0.5), ("infrared", 0.5), ("head", 1.0)):
        for whole, share in zip(
            jax.tree.leaves(moves[0][name]),
            jax.tree.leaves(moves[1][name]),
            strict=True,
        ):
            np.testing.assert_allclose(share, ratio * whole, rtol=1e-3, atol=1e-7)


# --- Views ---------------------------------------------------------------------------

STILL = COEFFICIENTS._replace(flip=0.0, erase=0.0)


def test_views_are_the_batch_where_nothing_is_augmented():
    batch = batch_of()
    views = BatchViews(pad=0)
    assert views.modalities == ("visible", "infrared")
    images = make_views(batch, KEY, views, STILL)
    assert images.shape == (BATCH, 2, *SIZE, 3)
    for column, name in enumerate(views.modalities):
        expected = augment.normalise(batch[name])
        np.testing.assert_allclose(images[:, column], expected, atol=1e-6)


def pixels(normalised):
    return np.rint((normalised * augment.STD + augment.MEAN) * 255)


def test_the_third_view_is_one_channel_of_the_visible_images():
    batch, views = batch_of(), BatchViews(pad=0, third_view=True)
    assert views.modalities == ("visible", "visible", "infrared")
    images = pixels(np.asarray(make_views(batch, KEY, views, STILL)))
    np.testing.assert_array_equal(images[:, 0], batch["visible"])
    np.testing.assert_array_equal(images[:, 2], batch["infrared"])
    third = images[:, 1]
    assert (third == third[..., :1]).all()
    visible = np.asarray(batch["visible"])
    for image, grey in zip(visible, third, strict=True):
        assert any((grey[..., 0] == image[..., c]).all() for c in range(3))


def test_pseudo_infrared_is_grey_and_made_of_the_second_side():
    batch, views = batch_of(), BatchViews(pad=0, pseudo_infrared=True)
    assert views.modalities == ("visible", "infrared")
    images = pixels(np.asarray(make_views(batch, KEY, views, STILL)))
    np.testing.assert_array_equal(images[:, 0], batch["visible"])
    assert (images[:, 1] == images[:, 1][..., :1]).all()
    # Equal colours stay equal: it is a function of colour, image by image.
    flat = dict(batch, infrared=jnp.full((BATCH, *SIZE, 3), 77, jnp.uint8))
    images = pixels(np.asarray(make_views(flat, KEY, views, STILL)))
    assert all(len(np.unique(image)) == 1 for image in images[:, 1])


def test_unsigned_responses_keep_the_order_of_one_channel_and_signed_ones_do_not():
    batch, views = batch_of(), BatchViews(pad=0, pseudo_infrared=True)

    def follows_a_channel(signed):
        images = make_views(batch, KEY, views, STILL, signed)
        greys = pixels(np.asarray(images))[:, 1, ..., 0].astype(int)
        colours = np.asarray(batch["infrared"]).astype(int)
        steps = lambda x: np.diff(x.reshape(len(x), -1), axis=1)
        agree = [steps(greys) * steps(colours[..., c]) >= 0 for c in range(3)]
        return np.all(agree, axis=2).any(axis=0)

    assert follows_a_channel(0.0).all()
    assert not follows_a_channel(1.0).any()


def test_views_are_augmented_each_with_its_own_numbers():
    batch = batch_of()
    batch["infrared"] = batch["visible"]
    images = make_views(batch, KEY, BatchViews(pad=2), COEFFICIENTS._replace(erase=1.0))
    assert (images[:, 0] != images[:, 1]).any(axis=(1, 2, 3)).all()


# --- The loss ------------------------------------------------------------------------


def test_the_total_is_the_weighed_sum_over_rows_in_view_order():
    rng = np.random.default_rng(0)
    views = ("visible", "visible", "infrared")
    labels = jnp.array([1, 1, 4, 4])
    out = {
        name: jnp.asarray(rng.standard_normal((4, 3, dim)), jnp.float32)
        for name, dim in (("logits", CLASSES), ("pooled", 5), ("neck", 5))
    }
    coefficients = COEFFICIENTS._replace(
        identity=2.0, metric=3.0, infonce=5.0, margin=1.0
    )
    loss, metrics = total_loss(out, labels, views, coefficients)
    # Row by row: image pair first, view second.
    rows = [(b, v) for b in range(4) for v in range(3)]
    take = lambda name: jnp.stack([out[name][b, v] for b, v in rows])
    of_rows = jnp.array([labels[b] for b, _ in rows])
    modality = jnp.array([int(views[v] == "infrared") for _, v in rows])
    parts = {
        "identity": cross_entropy(take("logits"), of_rows, 0.1),
        "metric": hetero_center_triplet(take("pooled"), of_rows, modality, 1.0),
        "infonce": cross_modal_infonce(take("neck"), of_rows, modality, 0.1),
    }
    for name, expected in parts.items():
        np.testing.assert_allclose(metrics[f"loss/{name}"], expected, rtol=1e-6)
    expected = 2 * parts["identity"] + 3 * parts["metric"] + 5 * parts["infonce"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert metrics["loss"] == loss
    assert metrics["accuracy"] == accuracy(take("logits"), of_rows)


# --- Embedding -----------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["visible", "infrared"])
def test_embeddings_have_length_one_and_flip_makes_them_mirror_blind(
    variables, modality
):
    images = batch_of()["visible"]
    mirror = images[:, :, ::-1]
    plain, flipping = (
        jax.jit(make_embed_step(Stub(), modality, flip=flip)) for flip in (False, True)
    )
    blind = flipping(variables, images)
    assert blind.shape == (BATCH, 8)
    assert blind.dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(blind, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(flipping(variables, mirror), blind, atol=1e-6)
    one, two = plain(variables, images), plain(variables, mirror)
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(blind, l2_normalise(one + two), atol=1e-6)


class StubWithParts(Stub):
    """The embedding is longer than the deepest head's feature."""

    @nn.compact
    def __call__(self, images, views, train=False):
        embedding, out = super().__call__(images, views, train)
        return jnp.concatenate([embedding, 2 * embedding[..., :3]], axis=-1), out


def test_the_global_feature_leaves_the_parts_out(variables):
    images = batch_of()["visible"]
    embed = lambda model, feature: jax.jit(
        make_embed_step(model, "visible", flip=True, feature=feature)
    )(variables, images)
    alone = embed(Stub(), "all")
    whole, found = (embed(StubWithParts(), name) for name in ("all", "global"))
    assert whole.shape == (BATCH, 11)
    np.testing.assert_allclose(found, alone, atol=1e-6)


def test_an_image_is_embedded_by_its_own_stream(variables):
    images = batch_of()["visible"]
    found = [
        jax.jit(make_embed_step(Stub(), modality, flip=False))(variables, images)
        for modality in ("visible", "infrared")
    ]
    assert np.abs(found[0] - found[1]).max() > 1e-3
    with pytest.raises(ValueError, match=r"'thermal'.*visible.*infrared"):
        make_embed_step(Stub(), "thermal", flip=False)


@pytest.mark.parametrize(
    ("size", "count"),
    [((256, 128), 8), ((288, 144), 4), ((128, 64), 32), ((64, 32), 64)],
)
def test_a_cpu_embeds_as_many_at_once_as_its_cache_holds(size, count):
    assert images_at_once(size, 64) == count
    assert images_at_once((2048, 2048), 7) == 1


def test_images_embedded_in_groups_are_embedded_alike(variables):
    images = batch_of()["visible"]
    expected, found, rest = (
        jax.jit(make_embed_step(Stub(), "visible", flip=True, at_once=n))(
            variables, images
        )
        for n in (0, 2, 3)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rest, expected)  # 3 does not divide 4
