"""Networks by name: `create("osnet_x0_25", num_classes=395)`, `list_models()`."""

import difflib

from vireid_jax.models.heads import NECK_NORMS
from vireid_jax.models.osnet import CHANNELS, STAGES
from vireid_jax.models.two_stream import TwoStreamOSNet

DTYPES = ("float32", "bfloat16", "float64")


def list_models() -> list[str]:
    """Lists the names that `create` takes."""
    return list(CHANNELS)


def create(
    name: str,
    *,
    num_classes: int | None = None,
    num_specific_stages: int = 1,
    separate_norm: bool = False,
    neck_norm: str = "shared",
    num_stripes: int = 0,
    zero_init_residual: bool = True,
    dtype: str = "float32",
) -> TwoStreamOSNet:
    """Creates a two-stream network; `num_classes=None` leaves the classifier out.

    Raises ValueError, naming the legal values, for an unknown or impossible option.
    """
    if name not in CHANNELS:
        near = difflib.get_close_matches(name, CHANNELS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown model {name!r}{hint} Known: {list_models()}")
    _check("num_specific_stages", num_specific_stages, range(len(STAGES) + 1))
    _check("neck_norm", neck_norm, NECK_NORMS)
    _check("dtype", dtype, DTYPES)
    return TwoStreamOSNet(
        channels=CHANNELS[name],
        num_classes=num_classes,
        num_specific_stages=num_specific_stages,
        separate_norm=separate_norm,
        neck_norm=neck_norm,
        num_stripes=num_stripes,
        zero_init_residual=zero_init_residual,
        dtype=dtype,
    )


def _check(option: str, value, legal) -> None:
    if value not in legal:
        raise ValueError(f"{option} is {value!r}; legal values are {list(legal)}")
