"""Every option, its default and its legal values; and the numbers derived from them.

A config file starts from `default_config()` and changes what it needs to.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, FrozenConfigDict

from vireid_jax import models
from vireid_jax.losses import METRIC_LOSSES
from vireid_jax.models.heads import NECK_NORMS
from vireid_jax.models.part_relations import RELATIONS
from vireid_jax.models.self_distillation import STUDENTS
from vireid_jax.run.errors import UserError
from vireid_jax.run.workdir import CONFIG, METRICS

OPTIMIZERS = ("adamw", "sgd")

# Removed keys of config.model: old checkpoints load if they have these values.
_REMOVED = {"part_width": "lite", "contrastive": False}
# What may differ when a run goes on: none of it changes a number.
_FREE = ("data.dir", "data.threads", "data.workers", "data.cache", "log.tensorboard")


def default_config() -> ConfigDict:
    """Returns the recipe for real data at 288x144.

    Beside a value stands where it comes from; "ours" was not tried at this scale. What
    the studies of docs/results.md say is of small images of synthetic people.
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
    c.data.workers = 0  # processes that decode ahead, with `threads` in each
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
    """Returns the config, changed as the row `name` of a study's table says.

    A row maps dotted keys to values. Raises UserError naming the rows for any other.
    """
    if name not in rows:
        raise UserError(f"there is no row {name!r}; give FILE.py:ROW, of {list(rows)}")
    config.update_from_flattened_dict(rows[name])
    return config


def read_argument(text: str, **defaults: bool | int) -> dict[str, bool | int]:
    """Reads what follows FILE.py: as `trial=3,smoke`; whatever is left out is default.

    Raises UserError naming the legal arguments.
    """
    found = dict(defaults)
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        kind = type(defaults.get(name))
        if kind is bool and not value:
            found[name] = True
        elif kind is int and value.isdigit():
            found[name] = int(value)
        else:
            legal = (n if d is False else f"{n}={d}" for n, d in defaults.items())
            raise UserError(
                f"{part!r} is no argument of this config; give FILE.py:ARGUMENT, of"
                f" {', '.join(legal)}"
            )
    return found


def shrink_for_a_rehearsal(config: ConfigDict) -> None:
    """Makes a config one of minutes on a CPU: shows that all runs, and nothing else."""
    config.data.size = (64, 32)
    config.data.validation_identities = 2
    config.data.cache = "host"
    config.batch.identities = 4
    config.batch.images = 2
    config.augment.pad = 3
    config.model.name = "osnet_x0_25"
    config.model.granularities = (2, 4)
    config.model.pretrained = "osnet_x0_25_walkers"
    config.schedule.epochs = 0.5
    config.eval.every_epochs = 0.5


def with_defaults(stored: Mapping[str, Any]) -> ConfigDict:
    """Returns a config that was stored as JSON; keys younger than it at their default.

    So a new key's default must be what was done before there was the key.
    """
    c = default_config()
    with c.unlocked():
        c.update(stored)
        for name, default in _REMOVED.items():
            if (value := c.model.get(name, default)) != default:
                raise UserError(
                    f"config.model.{name} is {value!r}, which this version cannot do;"
                    f" valid values: {[default]}. Install the version that trained it"
                )
            if name in c.model:
                del c.model[name]
    return c


_CHOICES = {
    "data.second_side": ("infrared", "visible"),
    "data.cache": ("none", "host", "device"),
    "model.name": tuple(models.list_models()),
    "model.num_specific_stages": tuple(range(6)),
    "model.neck_norm": NECK_NORMS,
    "model.dtype": models.DTYPES,
    "model.relation": RELATIONS,
    "loss.metric_form": tuple(METRIC_LOSSES),
    "eval.feature": ("all", "global"),
    "optimizer.name": OPTIMIZERS,
}
_POSITIVE = (
    "mesh.model",
    "batch.identities",
    "batch.images",
    "loss.temperature",
    "loss.softness",
    "optimizer.learning_rate",
    "optimizer.clip_norm",
    "schedule.epochs",
    "eval.every_epochs",
    "eval.batch_size",
    "log.every_steps",
)
_NOT_NEGATIVE = (
    "data.validation_identities",
    "data.threads",
    "data.workers",
    "augment.pad",
    "model.num_stripes",
    "loss.identity",
    "loss.metric",
    "loss.infonce",
    "loss.distillation",
    "loss.parts",
    "loss.imitation",
    "loss.margin",
    "optimizer.pretrained_factor",
    "optimizer.weight_decay",
)
_FRACTIONS = (
    "augment.flip",
    "augment.erase",
    "loss.smoothing",
    "loss.soft_target",
    "schedule.warmup",
    "schedule.final",
)


def validate(config: ConfigDict) -> FrozenConfigDict:
    """Checks every value that can be wrong by itself; returns the config frozen.

    Raises UserError naming the key, its value and the legal ones.
    """
    _check_keys(config)
    if config.seed < 0:
        raise UserError(f"config.seed is {config.seed}; it must be 0 or larger")
    for key, legal in _CHOICES.items():
        if (value := _get(config, key)) not in legal:
            raise UserError(f"config.{key} is {value!r}; legal values: {list(legal)}")
    for key in _POSITIVE:
        if not (value := _get(config, key)) > 0:
            raise UserError(f"config.{key} is {value}; it must be larger than 0")
    for key in _NOT_NEGATIVE:
        if not (value := _get(config, key)) >= 0:
            raise UserError(f"config.{key} is {value}; it must be 0 or larger")
    for key in _FRACTIONS:
        if not 0 <= (value := _get(config, key)) <= 1:
            raise UserError(f"config.{key} is {value}; it must lie in 0..1")
    size = tuple(config.data.size)
    if len(size) != 2 or any(type(n) is not int or n < 32 or n % 16 for n in size):
        raise UserError(
            f"config.data.size is {size}; it must be (height, width), each a multiple"
            " of 16 (the network's output stride) and at least 32"
        )
    if config.model.num_stripes > size[0] // 16:
        raise UserError(
            f"config.model.num_stripes is {config.model.num_stripes}; the last map of"
            f" images {size[0]} high has {size[0] // 16} rows to cut, so give 0 to"
            f" {size[0] // 16}, or a larger config.data.size"
        )
    if wrong := [name for name in config.model.students if name not in STUDENTS]:
        raise UserError(
            f"config.model.students holds {wrong[0]!r}; legal are any of {STUDENTS}, or"
            " () for no self-distillation"
        )
    for count in config.model.granularities:
        if type(count) is not int or not 2 <= count <= size[0] // 16:
            raise UserError(
                f"config.model.granularities holds {count!r}; the last map of images"
                f" {size[0]} high has {size[0] // 16} rows to cut, so each must be 2 to"
                f" {size[0] // 16}, or a larger config.data.size"
            )
    return FrozenConfigDict(config)


def _check_keys(config: ConfigDict) -> None:
    """Raises UserError for a key that is not ours, one that lacks, or a wrong type."""
    legal, given = flat(default_config()), flat(config)
    for key, value in given.items():
        if key.startswith("data.options."):
            continue  # the data set's builder knows them
        if unknown := explain_unknown_key(f"config.{key}"):
            raise UserError(unknown)
        types = (int, float) if isinstance(legal[key], float) else type(legal[key])
        if not isinstance(value, types) or isinstance(value, bool) != (types is bool):
            raise UserError(
                f"config.{key} is {value!r}; it must be of type"
                f" {type(legal[key]).__name__}, such as {legal[key]!r}"
            )
    if lacking := sorted(legal.keys() - given.keys()):
        raise UserError(
            f"config.{lacking[0]} is missing; begin a config with"
            " vireid_jax.config.default_config()"
        )


def explain_unknown_key(name: str) -> str:
    """Says that there is no key `name`, and what may be meant; "" if there is one."""
    legal = [f"config.{key}" for key in flat(default_config())]
    if name in legal or name.startswith("config.data.options."):
        return ""
    close = difflib.get_close_matches(name, legal, 1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"there is no {name}; {meant}All keys stand in vireid_jax/config.py"


def flat(config: ConfigDict | FrozenConfigDict) -> dict[str, Any]:
    """Lists a config's values by dotted key."""
    return flatten_dict(config.to_dict(), sep=".")


def changed_keys(config: ConfigDict | FrozenConfigDict) -> str:
    """Lists what differs from the default config: `data.name='walkers' seed=1 ...`."""
    default, given = flat(default_config()), flat(config)
    changed = (key for key in given if given[key] != default.get(key))
    return " ".join(f"{key}={given[key]!r}" for key in changed)


def _get(config: ConfigDict, key: str):
    group, name = key.split(".")
    return config[group][name]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Numbers of a run, each computed here and nowhere else."""

    batch_size: int  # image pairs a step: P x K
    images_per_step: int  # read from the data set
    steps_per_epoch: int
    num_steps: int
    eval_steps: int  # steps between two evaluations

    def epoch(self, step: int) -> float:
        """Returns how many epochs `step` steps are."""
        return round(step / self.steps_per_epoch, 3)

    def is_eval(self, step: int) -> bool:
        """Tells whether to evaluate and save after `step` steps."""
        return step % self.eval_steps == 0 or step == self.num_steps


def make_plan(config: FrozenConfigDict, steps_per_epoch: int) -> Plan:
    """Derives a run's numbers from the config and the length of an epoch."""
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
    """Lists by dotted key what of a config changes a number."""
    return {key: value for key, value in flat(config).items() if key not in _FREE}


def check_same_config(workdir: Path, config: ConfigDict | FrozenConfigDict) -> None:
    """Raises UserError where a run of another config has work in the folder.

    It names each key that differs. What changes no number may: where data lie, and how
    many threads read them.
    """
    path = workdir / CONFIG
    has_work = any((workdir / "checkpoints").glob("[0-9]*"))
    metrics = workdir / METRICS
    has_work = has_work or (metrics.exists() and metrics.stat().st_size > 0)
    if not has_work or not path.exists():
        return
    try:
        old = with_defaults(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no config ({error}), so what began this run is not known; give"
            " another --workdir"
        ) from error
    old, new = decisive(old), decisive(config)
    other = [
        f"config.{key} is {new.get(key, 'absent')!r}, was {old.get(key, 'absent')!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "absent") != new.get(key, "absent")
    ]
    if other:
        raise UserError(
            f"{workdir} holds a run of another config: {'; '.join(other)}. Give its"
            " config to go on, or another --workdir to begin anew"
        )
