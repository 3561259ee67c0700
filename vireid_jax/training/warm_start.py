"""Where a new run's network starts: another run's checkpoint, or pretrained weights."""

from typing import Any

import jax

from vireid_jax.run.errors import UserError
from vireid_jax.training.checkpoint import by_path, read
from vireid_jax.weights import pretrained


def insert_pretrained(variables: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the variables with every stage's weights read from `source`."""
    tensors, _ = pretrained.read_weights(source)
    return pretrained.insert_weights(jax.device_get(variables), tensors, source)


def insert_run(target: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the variables of another run, a checkpoint's folder.

    Classifiers of other identities keep their values in `target`. Raise UserError,
    with the first array, where anything else does not fit.
    """
    variables, _ = read(source)
    stored = by_path(variables)
    values = []
    for name, ours in by_path(target).items():
        value = stored.get(name)
        if value is None or value.shape != ours.shape:
            if "classifier" not in name:
                shape = "absent" if value is None else value.shape
                raise UserError(
                    f"config.init_from={source} does not fit the network: {name} is"
                    f" {ours.shape} here and {shape} there. Give config.model as that"
                    " run has it, or another run"
                )
            value = ours
        values.append(value.astype(ours.dtype))
    return jax.device_get(jax.tree.unflatten(jax.tree.structure(target), values))
