"""Where a new run's network starts: another run's checkpoint, or pretrained weights."""

from typing import Any

import jax

from vireid_jax.embed.embedder import load
from vireid_jax.run.errors import UserError
from vireid_jax.weights import pretrained


def insert_pretrained(variables: dict[str, Any], source: str) -> dict[str, Any]:
    """Returns the variables with every stage's weights read from `source`."""
    tensors, _ = pretrained.read_weights(source)
    return pretrained.insert_weights(jax.device_get(variables), tensors, source)


def insert_run(target: dict[str, Any], source: str) -> dict[str, Any]:
    """Returns the variables of another run, a checkpoint's folder.

    Classifiers of other identities start anew. Raises UserError, naming the first
    array, where anything else does not fit.
    """
    leaves = lambda tree: jax.tree_util.tree_leaves_with_path(tree)
    there = dict(leaves(load(source).variables))
    values = []
    for path, mine in leaves(target):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found = there.get(path)
        if found is None or found.shape != mine.shape:
            if "classifier" not in name:
                shape = None if found is None else found.shape
                raise UserError(
                    f"config.init_from={source} does not fit the network: {name} is"
                    f" {mine.shape} here and {shape or 'absent'} there. Give"
                    " config.model as that run has it, or another run"
                )
            found = mine
        values.append(found.astype(mine.dtype))
    return jax.device_get(jax.tree.unflatten(jax.tree.structure(target), values))
