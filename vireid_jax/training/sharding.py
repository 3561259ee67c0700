"""The device mesh, and which device holds what.

Batches are split over the axis `data`. Of a state only the classifiers are split, over
`model`: with many identities they outweigh the network, which every device holds whole.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vireid_jax.data.source import Records
from vireid_jax.run.errors import UserError


def make_mesh(model: int = 1) -> Mesh:
    """Arrange all devices of all processes as `(data, model)`, in process order.

    The rows of a batch are then in process order too, and the devices that share a
    classifier, which hold the same rows, belong to one process. (`jax.make_mesh` would
    follow the torus of a TPU pod instead.) Auto axes: XLA places what is between inputs
    and outputs, and a batch norm's mean or a loss over the batch is global without a
    word in the model. Raise UserError if `model` does not divide the number of a
    process's devices.
    """
    local = jax.local_device_count()
    if local % model:
        fits = [n for n in range(1, local + 1) if local % n == 0]
        each = "each process has" if jax.process_count() > 1 else "there are"
        raise UserError(
            f"config.mesh.model is {model}, and {each} {local} devices; valid values:"
            f" {fits}"
        )
    devices = sorted(
        jax.devices(), key=lambda device: (device.process_index, device.id)
    )
    grid = np.array(devices).reshape(-1, model)
    return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Return the sharding that gives every device the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Return the sharding that splits the leading axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def state_shardings(state: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Return where each array of a state, or of its shapes, lives: a tree of shardings.

    Classifier kernels, and the optimizer's copies of them, are split over `model`: by
    classes, or by features where the classes do not divide, or not at all.
    """
    sharers = mesh.shape["model"]

    def place(path, leaf):
        is_split = sharers > 1 and "classifier" in jax.tree_util.keystr(path)
        for axis in (leaf.ndim - 1, leaf.ndim - 2) if is_split else ():
            if axis >= 0 and leaf.shape[axis] % sharers == 0:
                spec: list[str | None] = [None] * leaf.ndim
                spec[axis] = "model"
                return NamedSharding(mesh, PartitionSpec(*spec))
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, state)


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put this process's slice of a batch onto its devices as a global array."""
    place = jax.make_array_from_process_local_data
    return {name: place(batch_sharding(mesh), rows) for name, rows in batch.items()}


def place_ahead(
    batches: Iterable[dict[str, np.ndarray]], mesh: Mesh
) -> Iterator[dict[str, jax.Array]]:
    """Yield placed batches; the next one is copied while a step works on this one."""
    previous = None
    for batch in batches:
        placed = place_batch(batch, mesh)
        if previous:
            yield previous
        previous = placed
    if previous:
        yield previous


def own_rows(array: jax.Array) -> np.ndarray:
    """Fetch the rows of an array, split over the batch, that this process holds."""
    shards = {shard.index[0].start or 0: shard for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start].data) for start in sorted(shards)])


def place_everywhere(tree: Any, mesh: Mesh) -> Any:
    """Put host arrays, the same in every process, whole onto every device."""
    everywhere = replicated(mesh)
    place = jax.make_array_from_process_local_data
    if jax.process_count() == 1:
        return jax.device_put(tree, everywhere)  # all leaves in one call
    return jax.tree.map(lambda x: place(everywhere, np.asarray(x)), tree)


def place_images(
    visible: Records, infrared: Records, size: tuple[int, int], mesh: Mesh
) -> dict[str, jax.Array]:
    """Decode a training set and put it whole onto every device, flat rows of uint8.

    Return it by modality, `[rows, H * W * 3]`, as `step.look_up` takes it.
    """

    def place(records: Records) -> jax.Array:
        images = records.images(np.arange(len(records)), size)
        return place_everywhere(images.reshape(len(records), -1), mesh)

    images = place(visible)
    return {
        "visible": images,
        "infrared": images if infrared is visible else place(infrared),
    }


def check_divides(rows: int, mesh: Mesh | AbstractMesh, what: str) -> None:
    """Raise UserError if `rows` do not divide evenly over the mesh's `data` axis."""
    devices = mesh.shape["data"]
    if rows % devices:
        low = rows // devices * devices
        values = f"{low}, {low + devices}" if low else f"{devices}"
        raise UserError(
            f"{what} is {rows}, which {devices} devices cannot share evenly; the"
            f" nearest valid values: {values}"
        )
