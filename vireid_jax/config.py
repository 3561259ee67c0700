"""Every option, its default and its valid values; and the numbers derived from them.

A config file starts from `default_config()` and changes what it needs to.
"""

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, FrozenConfigDict

from vireid_jax import models
from vireid_jax.losses import METRIC_LOSSES
from vireid_jax.models.heads import NECK_NORMS
from vireid_jax.models.part_relations import RELATIONS
from vireid_jax.models.self_distillation import STUDENTS
from vireid_jax.run.errors import UserError, did_you_mean
from vireid_jax.run.files import CONFIG, METRICS

OPTIMIZERS = ("adamw", "sgd")

# What may differ when a run is resumed: none of it changes a number.
_FREE = ("data.dir", "data.threads", "data.cache", "log.tensorboard")

# What older runs stored, and the value that means what is done today; None: any.
REMOVED = {"data.workers": None, "model.part_width": "lite", "model.contrastive": False}


def default_config() -> ConfigDict:
    """Return the recipe for real data at 288x144.

    The comment beside a value is its source; "ours" was not tried at this scale. The
    studies of docs/results.md are of small images of synthetic people.
    """
    c = ConfigDict()
    c.seed = 0
    c.init_from = ""  # a run whose network to start from, in place of model.pretrained

    c.data = ConfigDict()
    c.data.name = ""  # a folder of datasets/
    c.data.variant = ""  # its TFDS config; "": the data set's first
    c.data.options = ConfigDict()  # walkers only: any other variant, made to measure
    c.data.dir = ""  # prepared data sets; "": TFDS's own default folder
    c.data.size = (288, 144)  # height, width (AGW)
    c.data.second_side = "infrared"  # "visible": pretrain on pairs of colour images
    c.data.validation_identities = 0  # held out of training, to choose the best epoch
    c.data.threads = 2  # that decode ahead
    c.data.cache = "none"  # "host": decoded images in memory; "device": in its memory

    c.mesh = ConfigDict()
    c.mesh.model = 1  # devices that share the classifiers; the rest shares the batch

    c.batch = ConfigDict()
    c.batch.identities = 8  # P (AGW)
    c.batch.images = 4  # K of each modality (AGW)

    c.augment = ConfigDict()
    c.augment.pad = 10  # pixels of padding before the random crop (AGW)
    c.augment.flip = 0.5  # probability (AGW)
    c.augment.erase = 0.5  # probability (CAJ)
    c.augment.third_view = True  # visible images again, one channel copied (CAJ)

    c.model = ConfigDict()
    c.model.name = "osnet_x1_0"
    c.model.num_specific_stages = 1  # AGW's two stems; on walkers 2 wins some mAP
    c.model.separate_norm = False  # AGW; no certain gain on both ways in the studies
    c.model.neck_norm = "shared"  # AGW; or "per_modality": alike in the studies
    c.model.num_stripes = 0  # of the last map, appended; 4 won on shifted walkers
    c.model.students = ()  # SDM: after which of the stages conv2, conv3, conv4
    c.model.granularities = ()  # MGIM: parts of the last map, for instance (2, 3, 6)
    c.model.relation = "one_vs_rest"  # Park & Ham 2020; "attention" lost in the studies
    c.model.zero_init_residual = True  # a block begins as its shortcut (Goyal et al.)
    c.model.dtype = "float32"  # "bfloat16" on accelerators
    c.model.rematerialise = False  # compute blocks twice: less memory, more time
    c.model.pretrained = ""  # shipped name or .safetensors path; "": random weights

    c.loss = ConfigDict()
    c.loss.identity = 1.0  # weights of the loss's terms; these two as in AGW
    c.loss.metric = 1.0
    c.loss.infonce = 0.0  # in place of metric for walkers: +10 points in the studies
    c.loss.distillation = 0.5  # ours; half and twice are alike in the studies
    c.loss.parts = 1.0  # ours; six times loses in the studies
    c.loss.metric_form = "hetero_center"  # Liu et al. 2020
    c.loss.smoothing = 0.1  # torchreid
    c.loss.margin = 0.3  # Liu et al. 2020
    c.loss.temperature = 0.1  # of infonce (SupCon)
    c.loss.soft_target = 0.3  # of a student's cross entropy, the teacher's share (ours)
    c.loss.softness = 3.0  # the temperature of that target (ours)
    c.loss.imitation = 0.1  # of the teacher's feature (ours)

    c.optimizer = ConfigDict()
    c.optimizer.name = "adamw"  # ours; AGW has SGD at 0.1
    c.optimizer.learning_rate = 7e-4  # ours, and half of it (3.5e-4)
    c.optimizer.pretrained_factor = 0.5  # of the rate, for stages that had weights
    c.optimizer.weight_decay = 5e-4  # AGW
    c.optimizer.clip_norm = 5.0  # ours: guards the first steps, seldom acts

    c.schedule = ConfigDict()
    c.schedule.epochs = 120.0  # ours
    c.schedule.warmup = 1 / 12  # share of all steps: 10 epochs of 120 (AGW)
    c.schedule.final = 0.01  # of the peak rate (ours)

    c.eval = ConfigDict()
    c.eval.every_epochs = 10.0  # validation and a checkpoint
    c.eval.batch_size = 64
    c.eval.flip = True  # sum the embeddings of image and mirror
    c.eval.feature = "all"  # "global" leaves the parts out

    c.log = ConfigDict()
    c.log.every_steps = 20
    c.log.tensorboard = False
    c.lock()  # a key that is not here is a mistake
    c.data.options.unlock()
    return c


def with_row(
    config: ConfigDict, rows: Mapping[str, Mapping[str, Any]], name: str
) -> ConfigDict:
    """Return the config with the changes of the row `name` of a study's table.

    A row maps dotted keys to values. Raise UserError with the valid rows for any other.
    """
    if name not in rows:
        raise UserError(f"there is no row {name!r}; valid values: {list(rows)}")
    config.update_from_flattened_dict(rows[name])
    return config


def with_defaults(stored: Any) -> ConfigDict:
    """Return a config that was stored as JSON; missing keys get their defaults.

    So a new key's default must be what was done before there was the key. Raise
    UserError for what is not a config, or has a value that was removed since.
    """
    c = default_config()
    try:
        stored = {group: copy.copy(values) for group, values in stored.items()}
        for key, default in REMOVED.items():
            group, name = key.split(".")
            value = stored.get(group, {}).pop(name, default)
            if default is not None and value != default:
                raise UserError(
                    f"the stored config has config.{key}={value!r}, which was removed;"
                    f" valid values: {default!r}. Use the version of vireid_jax that"
                    " made this run"
                )
        with c.unlocked():
            c.update(stored)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"the stored config is not valid: {error}") from error
    return c


def _one_of(*values: Any) -> tuple[Callable[[Any], bool], str]:
    return values.__contains__, str(list(values))


_POSITIVE = lambda value: value > 0, "larger than 0"
_NOT_NEGATIVE = lambda value: value >= 0, "0 or larger"
_FRACTION = lambda value: 0 <= value <= 1, "0..1"
_SIZE = (
    lambda size: (
        len(size) == 2 and all(type(n) is int and n >= 32 and n % 16 == 0 for n in size)
    ),
    "(height, width), each a multiple of 16 (the network's output stride) from 32 on",
)
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": _NOT_NEGATIVE,
    "data.size": _SIZE,
    "data.second_side": _one_of("infrared", "visible"),
    "data.validation_identities": _NOT_NEGATIVE,
    "data.threads": _NOT_NEGATIVE,
    "data.cache": _one_of("none", "host", "device"),
    "mesh.model": _POSITIVE,
    "batch.identities": _POSITIVE,
    "batch.images": _POSITIVE,
    "augment.pad": _NOT_NEGATIVE,
    "augment.flip": _FRACTION,
    "augment.erase": _FRACTION,
    "model.name": _one_of(*models.list_models()),
    "model.num_specific_stages": _one_of(*range(6)),
    "model.neck_norm": _one_of(*NECK_NORMS),
    "model.students": (
        lambda names: all(name in STUDENTS for name in names),
        f"any of {STUDENTS}, () for none",
    ),
    "model.relation": _one_of(*RELATIONS),
    "model.dtype": _one_of(*models.DTYPES),
    "loss.identity": _NOT_NEGATIVE,
    "loss.metric": _NOT_NEGATIVE,
    "loss.infonce": _NOT_NEGATIVE,
    "loss.distillation": _NOT_NEGATIVE,
    "loss.parts": _NOT_NEGATIVE,
    "loss.metric_form": _one_of(*METRIC_LOSSES),
    "loss.smoothing": _FRACTION,
    "loss.margin": _NOT_NEGATIVE,
    "loss.temperature": _POSITIVE,
    "loss.soft_target": _FRACTION,
    "loss.softness": _POSITIVE,
    "loss.imitation": _NOT_NEGATIVE,
    "optimizer.name": _one_of(*OPTIMIZERS),
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.pretrained_factor": _NOT_NEGATIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.clip_norm": _POSITIVE,
    "schedule.epochs": _POSITIVE,
    "schedule.warmup": _FRACTION,
    "schedule.final": _FRACTION,
    "eval.every_epochs": _POSITIVE,
    "eval.batch_size": _POSITIVE,
    "eval.feature": _one_of("all", "global"),
    "log.every_steps": _POSITIVE,
}


def validate(config: ConfigDict) -> FrozenConfigDict:
    """Return the config frozen, after a check of keys, types and values.

    Raise UserError with the key, its value and the valid ones.
    """
    default, values = flat(default_config()), flat(config)
    for key, value in values.items():
        if unknown := explain_unknown_key(f"config.{key}"):
            raise UserError(unknown)
        kind = type(default.get(key, value))  # of data.options, the builder's own
        kinds = (int, float) if kind is float else kind
        if not isinstance(value, kinds) or isinstance(value, bool) != (kind is bool):
            raise UserError(
                f"config.{key} is {value!r}; it must be of type {kind.__name__}, such"
                f" as {default[key]!r}"
            )
    if missing := sorted(default.keys() - values.keys()):
        raise UserError(
            f"config.{missing[0]} is missing; start a config from"
            " vireid_jax.config.default_config()"
        )
    for key, (is_valid, valid) in _CHECKS.items():
        if not is_valid(values[key]):
            raise UserError(f"config.{key} is {values[key]!r}; valid values: {valid}")
    rows = config.data.size[0] // 16
    for key, least in {"num_stripes": 0, "granularities": 2}.items():
        value = config.model[key]
        for count in (value,) if isinstance(value, int) else value:
            if type(count) is not int or not least <= count <= rows:
                raise UserError(
                    f"config.model.{key} is {value!r}; the last feature map of images"
                    f" {config.data.size[0]} high has {rows} rows to divide. Valid"
                    f" values: {least} to {rows}; or raise config.data.size"
                )
    return FrozenConfigDict(config)


def explain_unknown_key(name: str) -> str:
    """Return the error message if there is no key `name`; "" if there is one."""
    names = [f"config.{key}" for key in flat(default_config())]
    if name in names or name.startswith("config.data.options."):
        return ""
    meant = did_you_mean(name, names)
    return f"there is no {name}; {meant}All keys are in vireid_jax/config.py"


def flat(config: ConfigDict | FrozenConfigDict) -> dict[str, Any]:
    """Return a config's values by dotted key."""
    return flatten_dict(config.to_dict(), sep=".")


def changed_keys(config: ConfigDict | FrozenConfigDict) -> str:
    """Return what differs from the default config: `data.name='walkers' seed=1`."""
    default, values = flat(default_config()), flat(config)
    changed = (key for key in values if values[key] != default.get(key))
    return " ".join(f"{key}={values[key]!r}" for key in changed)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Numbers of a run, each computed here and nowhere else."""

    batch_size: int  # image pairs a step: P x K
    images_per_step: int  # read from the data set
    steps_per_epoch: int
    num_steps: int
    eval_steps: int  # steps between two evaluations

    def epoch(self, step: int) -> float:
        """Return how many epochs `step` steps are."""
        return round(step / self.steps_per_epoch, 3)

    def is_eval(self, step: int) -> bool:
        """Return whether to evaluate and save after `step` steps."""
        return step % self.eval_steps == 0 or step == self.num_steps


def make_plan(config: FrozenConfigDict, steps_per_epoch: int) -> Plan:
    """Derive a run's numbers from the config and the length of an epoch."""
    steps = lambda epochs: max(1, math.ceil(epochs * steps_per_epoch))
    batch_size = config.batch.identities * config.batch.images
    return Plan(
        batch_size=batch_size,
        images_per_step=2 * batch_size,
        steps_per_epoch=steps_per_epoch,
        num_steps=steps(config.schedule.epochs),
        eval_steps=steps(config.eval.every_epochs),
    )


def decisive(config: ConfigDict | FrozenConfigDict) -> dict[str, Any]:
    """Return by dotted key what of a config changes a number."""
    return {key: value for key, value in flat(config).items() if key not in _FREE}


def check_same_config(workdir: Path, config: ConfigDict | FrozenConfigDict) -> None:
    """Raise UserError if the folder holds work of a run of another config.

    The message has each key that differs. What changes no number may differ: where data
    are, and how many threads read them.
    """
    path, metrics = workdir / CONFIG, workdir / METRICS
    has_work = any((workdir / "checkpoints").glob("[0-9]*"))
    has_work = has_work or (metrics.exists() and metrics.stat().st_size > 0)
    if not has_work or not path.exists():
        return
    try:
        old = decisive(with_defaults(json.loads(path.read_text())))
    except ValueError as error:  # of JSON's, or a UserError
        raise UserError(
            f"{path} cannot be read ({error}), so the config of this run is unknown;"
            " give another --workdir"
        ) from error
    new = decisive(config)
    different = [
        f"config.{key} is {new.get(key, 'absent')!r}, was {old.get(key, 'absent')!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "absent") != new.get(key, "absent")
    ]
    if different:
        raise UserError(
            f"{workdir} holds a run of another config: {'; '.join(different)}. Give its"
            " config to resume it, or another --workdir to start a new run"
        )
