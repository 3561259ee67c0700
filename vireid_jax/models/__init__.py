"""Networks by name: `create("osnet_x0_25", num_classes=395)`, `list_models()`."""

from typing import Any

import flax.errors
import flax.linen as nn

from vireid_jax.models.heads import NECK_NORMS
from vireid_jax.models.osnet import CHANNELS, STAGES, variant_of
from vireid_jax.models.part_relations import RELATIONS
from vireid_jax.models.self_distillation import STUDENTS
from vireid_jax.models.single_stream import OSNet
from vireid_jax.models.two_stream import TwoStreamOSNet
from vireid_jax.run.errors import UserError, did_you_mean

Network = nn.Module  # what `create` and `create_single` return
WrongVariables = flax.errors.FlaxError  # raised for variables of another network
DTYPES = ("float32", "bfloat16", "float64")
CHOICES = {  # valid values by option
    "num_specific_stages": tuple(range(len(STAGES) + 1)),
    "neck_norm": NECK_NORMS,
    "relation": RELATIONS,
    "dtype": DTYPES,
}


def list_models() -> list[str]:
    """Return the names that `create` and `create_single` take."""
    return list(CHANNELS)


def create(
    name: str,
    *,
    students: tuple[str, ...] = (),
    granularities: tuple[int, ...] = (),
    **options: Any,
) -> TwoStreamOSNet:
    """Create a two-stream network; without `num_classes` it has no classifier.

    `options` are the other fields of `TwoStreamOSNet`. Raise UserError, with the valid
    values, for an unknown or impossible value.
    """
    for student in students:
        _check("students", student, STUDENTS)
    if any(count < 2 for count in granularities):
        raise UserError(
            f"granularities are {granularities}; each must be 2 or larger, because one"
            " part has no rest"
        )
    options |= {"students": tuple(students), "granularities": tuple(granularities)}
    return TwoStreamOSNet(**_checked(name, options))


def create_single(name: str, **options: Any) -> OSNet:
    """Create the single-modality OSNet; `options` are its fields. Raise as `create`."""
    return OSNet(**_checked(name, options))


def _checked(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the network `name`, with its channels and variant."""
    if name not in CHANNELS:
        hint = did_you_mean(name, CHANNELS)
        raise UserError(f"unknown model {name!r}; {hint}valid values: {list_models()}")
    for option, value in options.items():
        if option in CHOICES:
            _check(option, value, CHOICES[option])
    return {"channels": CHANNELS[name], "variant": variant_of(name)} | options


def _check(option: str, value: Any, valid: tuple[Any, ...]) -> None:
    if value not in valid:
        raise UserError(f"{option} is {value!r}; valid values: {list(valid)}")
