"""Networks by name: `create("osnet_x0_25", num_classes=395)`, `list_models()`."""

import difflib

import flax.errors
import flax.linen as nn

from vireid_jax.models.heads import NECK_NORMS
from vireid_jax.models.osnet import CHANNELS, STAGES, variant_of
from vireid_jax.models.part_relations import PART_WIDTHS, RELATIONS
from vireid_jax.models.self_distillation import STUDENTS
from vireid_jax.models.single_stream import OSNet
from vireid_jax.models.two_stream import TwoStreamOSNet
from vireid_jax.run.errors import UserError

Network = nn.Module  # what `create` and `create_single` return
WrongVariables = flax.errors.FlaxError  # raised for variables of another network
DTYPES = ("float32", "bfloat16", "float64")


def list_models() -> list[str]:
    """Lists the names that `create` and `create_single` take."""
    return list(CHANNELS)


def create(
    name: str,
    *,
    num_classes: int | None = None,
    num_specific_stages: int = 1,
    separate_norm: bool = False,
    neck_norm: str = "shared",
    num_stripes: int = 0,
    students: tuple[str, ...] = (),
    granularities: tuple[int, ...] = (),
    part_width: str = "lite",
    relation: str = "one_vs_rest",
    contrastive: bool = False,
    zero_init_residual: bool = True,
    dtype: str = "float32",
    rematerialise: bool = False,
) -> TwoStreamOSNet:
    """Creates a two-stream network; `num_classes=None` leaves the classifier out.

    Raises UserError, naming the legal values, for an unknown or impossible option.
    """
    _check_name(name)
    _check("num_specific_stages", num_specific_stages, range(len(STAGES) + 1))
    _check("neck_norm", neck_norm, NECK_NORMS)
    _check("part_width", part_width, PART_WIDTHS)
    _check("relation", relation, RELATIONS)
    for student in students:
        _check("students", student, STUDENTS)
    for count in granularities:
        if count < 2:
            raise UserError(
                f"granularities {granularities} hold {count}; a part has a rest from 2"
                " on"
            )
    _check("dtype", dtype, DTYPES)
    return TwoStreamOSNet(
        channels=CHANNELS[name],
        variant=variant_of(name),
        num_classes=num_classes,
        num_specific_stages=num_specific_stages,
        separate_norm=separate_norm,
        neck_norm=neck_norm,
        num_stripes=num_stripes,
        students=students,
        granularities=granularities,
        part_width=part_width,
        relation=relation,
        contrastive=contrastive,
        zero_init_residual=zero_init_residual,
        dtype=dtype,
        rematerialise=rematerialise,
    )


def create_single(
    name: str,
    *,
    num_classes: int | None = None,
    zero_init_residual: bool = True,
    dtype: str = "float32",
) -> OSNet:
    """Creates the single-modality OSNet; `num_classes=None` leaves the classifier out.

    Raises UserError, naming the legal values, for an unknown or impossible option.
    """
    _check_name(name)
    _check("dtype", dtype, DTYPES)
    return OSNet(
        channels=CHANNELS[name],
        variant=variant_of(name),
        num_classes=num_classes,
        zero_init_residual=zero_init_residual,
        dtype=dtype,
    )


def _check_name(name: str) -> None:
    if name not in CHANNELS:
        near = difflib.get_close_matches(name, CHANNELS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"unknown model {name!r}{hint} Known: {list_models()}")


def _check(option: str, value, legal) -> None:
    if value not in legal:
        raise UserError(f"{option} is {value!r}; legal values are {list(legal)}")
