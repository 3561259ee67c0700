"""The device mesh and who holds what: batches are split over `data`, state is not."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
    """Arranges all devices of all processes as `(data, model)`, with `model` of size 1.

    Auto axes: XLA places what is between inputs and outputs, and a batch norm's mean or
    a loss over the batch is global without a word in the model.
    """
    shape = (jax.device_count(), 1)
    return jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Gives every device the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this process's slice of a batch onto its devices as a global array."""
    place = jax.make_array_from_process_local_data
    return {name: place(over_batch(mesh), rows) for name, rows in batch.items()}


def check_divides(rows: int, mesh: Mesh, what: str) -> None:
    """Raises ValueError if `rows` do not split evenly over the mesh's `data` axis."""
    devices = mesh.shape["data"]
    if rows % devices:
        fits = sorted(
            {max(rows // devices, 1) * devices, (rows // devices + 1) * devices}
        )
        raise ValueError(
            f"{what} is {rows}, which {devices} devices cannot share evenly;"
            f" the nearest that work are {fits}"
        )
