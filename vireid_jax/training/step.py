"""The pure functions that jit compiles: the loss, one training step, one embedding."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt8
from ml_collections import ConfigDict

from vireid_jax import losses
from vireid_jax.data import augment
from vireid_jax.modality import MODALITIES
from vireid_jax.models import Network
from vireid_jax.models.heads import l2_normalise
from vireid_jax.models.self_distillation import STUDENTS
from vireid_jax.run.errors import UserError
from vireid_jax.training.state import TrainState

Batch = dict[str, Array]
Metrics = dict[str, Array]


class Coefficients(NamedTuple):
    """Constants of a run that a step takes as arguments: no change recompiles it."""

    flip: float  # as in config.augment
    erase: float
    identity: float  # from here on as in config.loss
    metric: float
    infonce: float
    distillation: float
    parts: float
    smoothing: float
    margin: float
    temperature: float
    soft_target: float
    softness: float
    imitation: float


class Schedule(NamedTuple):
    """What changes from step to step, by the number of steps taken before."""

    learning_rate: Float[Array, " steps"]
    signed: Float[Array, " steps"]  # share of signed responses, in pseudo-infrared


def make_coefficients(config: ConfigDict) -> Coefficients:
    """Read the constants of a step from the config."""
    augment, loss = config.augment, config.loss
    names = Coefficients._fields[2:]
    return Coefficients(augment.flip, augment.erase, *(loss[name] for name in names))


class BatchViews(NamedTuple):
    """Which views of a batch a step makes; changing one triggers recompilation."""

    pad: int
    third_view: bool = False  # visible images again, one channel in all three (CAJ)
    pseudo_infrared: bool = False  # the infrared side is made of visible images

    @property
    def modalities(self) -> tuple[str, ...]:
        """The stream of each view, as the network takes it."""
        return ("visible",) * (2 if self.third_view else 1) + ("infrared",)


def make_views(
    batch: Batch,
    key: Key[Array, ""],
    views: BatchViews,
    coefficients: Coefficients,
    signed: Float[Array, ""] | float = 0.0,
) -> Float[Array, "batch views H W 3"]:
    """Augment and normalise a uint8 batch, each view with its own random numbers."""
    visible, infrared = batch["visible"], batch["infrared"]
    if views.pseudo_infrared:
        infrared = augment.pseudo_infrared(key, infrared, signed)
    images = [visible, infrared]
    if views.third_view:
        images.insert(1, augment.third_view(key, visible))
    return jnp.stack(
        [
            augment.augment(
                jax.random.fold_in(key, i),
                view,
                pad=views.pad,
                flip=coefficients.flip,
                erase=coefficients.erase,
            )
            for i, view in enumerate(images)
        ],
        axis=1,
    )


def look_up(
    batch: Batch, images: dict[str, UInt8[Array, "rows pixels"]], size: tuple[int, int]
) -> Batch:
    """Replace row numbers by images, where the training set is on the device.

    Its rows are flat: of `[rows, H, W, 3]` a TPU would pad the 3 to 128.
    """
    looked_up = {
        name: rows.at[batch[name]].get(mode="promise_in_bounds").reshape(-1, *size, 3)
        for name, rows in images.items()
    }
    return batch | looked_up


def total_loss(
    out: dict[str, Array],
    labels: Int[Array, " batch"],
    modalities: tuple[str, ...],
    coefficients: Coefficients,
    metric_form: str = "hetero_center",
) -> tuple[Float[Array, ""], Metrics]:
    """Weight and sum the losses of one forward pass; return them by name as well.

    What the network does not return (students, parts) has no loss. The weights of
    `metric` and `infonce` are also those of the parts' own.
    """
    c, metrics = coefficients, {}
    out = {name: x.reshape(-1, *x.shape[2:]) for name, x in out.items()}
    modality = jnp.array([MODALITIES.index(m) for m in modalities])
    modality = jnp.tile(modality, len(labels))
    labels = jnp.repeat(labels, len(modalities))
    metric_loss = losses.METRIC_LOSSES[metric_form]

    def feature_losses(logits, pooled, neck, labels_of_logits):
        return {
            "identity": losses.cross_entropy(logits, labels_of_logits, c.smoothing),
            "metric": metric_loss(pooled, labels, modality, c.margin),
            "infonce": losses.cross_modal_infonce(
                neck, labels, modality, c.temperature
            ),
        }

    terms = feature_losses(out["logits"], out["pooled"], out["neck"], labels)
    metrics["accuracy"] = losses.accuracy(out["logits"], labels)
    for name in STUDENTS:
        if f"{name}/logits" not in out:
            continue
        loss = losses.distillation(
            out[f"{name}/logits"],
            out["logits"],
            out[f"{name}/pooled"],
            out["pooled"],
            labels,
            smoothing=c.smoothing,
            soft_target=c.soft_target,
            softness=c.softness,
            imitation=c.imitation,
        )
        terms["distillation"] = terms.get("distillation", 0.0) + loss
        metrics[f"loss/{name}"] = loss
        metrics[f"accuracy/{name}"] = losses.accuracy(out[f"{name}/logits"], labels)
    if "parts/logits" in out:
        flat = lambda x: x.reshape(len(labels), -1)
        of_each = jnp.repeat(labels, out["parts/logits"].shape[1])
        logits = out["parts/logits"].reshape(len(of_each), -1)
        pooled, neck = flat(out["parts/pooled"]), flat(out["parts/neck"])
        own = feature_losses(logits, pooled, neck, of_each)
        terms["parts"] = (
            own["identity"] + c.metric * own["metric"] + c.infonce * own["infonce"]
        )
        metrics["accuracy/parts"] = losses.accuracy(logits, of_each)
    loss = sum(getattr(c, name) * value for name, value in terms.items())
    metrics |= {f"loss/{name}": value for name, value in terms.items()}
    return loss, {"loss": loss} | metrics


def make_train_step(
    model: Network,
    optimizer: optax.GradientTransformation,
    rate_factors: Any,
    views: BatchViews,
    metric_form: str = "hetero_center",
    size: tuple[int, int] = (0, 0),
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Build `(state, batch, key, coefficients, schedule, images) -> (state, metrics)`.

    All randomness of step n comes from `fold_in(key, n)`. `images` is the training set
    by modality, flat, where the batch holds numbers of its rows; `size` is theirs.
    """

    def train_step(state, batch, key, coefficients, schedule, images=None):
        rate = schedule.learning_rate[state.step]
        signed = schedule.signed[state.step]
        key = jax.random.fold_in(key, state.step)
        with jax.named_scope("make_views"):
            batch = look_up(batch, images or {}, size)
            views_of_batch = make_views(batch, key, views, coefficients, signed)

        def loss_fn(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            (_, out), updated = model.apply(
                variables,
                views_of_batch,
                views.modalities,
                train=True,
                mutable=["batch_stats"],
            )
            loss, metrics = total_loss(
                out, batch["visible_id"], views.modalities, coefficients, metric_form
            )
            return loss, (metrics, updated["batch_stats"])

        gradients, (metrics, batch_stats) = jax.grad(loss_fn, has_aux=True)(
            state.params
        )
        with jax.named_scope("update"):
            directions, opt_state = optimizer.update(
                gradients, state.opt_state, state.params
            )
            params = jax.tree.map(
                lambda p, d, factor: p - rate * factor * d,
                state.params,
                directions,
                rate_factors,
            )
        metrics |= {"gradient_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    return train_step


def make_embed_step(
    model: Network, modality: str, *, flip: bool, feature: str = "all", at_once: int = 0
) -> Callable[[dict[str, Any], UInt8[Array, "batch H W 3"]], Float[Array, "batch D"]]:
    """Build `(variables, images) -> embeddings`, L2-normalised, for one modality.

    `flip` sums the embeddings of the image and of its mirror, and normalises again.
    `feature` "global" takes the deepest head's feature alone, without the parts.
    `at_once` images go through the network together, where they divide the batch; 0:
    all of them. Raise UserError for an unknown modality.
    """
    if modality not in MODALITIES:
        raise UserError(f"modality is {modality!r}; valid values: {list(MODALITIES)}")

    def embed(variables, images):
        images = augment.normalise(images)
        if flip:
            images = jnp.concatenate([images, images[:, :, ::-1]])
        embedding, out = model.apply(variables, images[:, None], (modality,))
        if feature == "global":
            embedding = l2_normalise(out["neck"])
        if flip:
            embedding = embedding.reshape(2, -1, embedding.shape[-1]).sum(0)
        return l2_normalise(embedding.reshape(-1, embedding.shape[-1]))

    def embed_step(variables, images):
        if not at_once or len(images) % at_once:
            return embed(variables, images)
        groups = images.reshape(-1, at_once, *images.shape[1:])
        embeddings = jax.lax.map(lambda group: embed(variables, group), groups)
        return embeddings.reshape(len(images), -1)

    return embed_step
