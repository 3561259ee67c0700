"""What training changes: data only, so a checkpoint can be read without our code."""

from typing import Any, NamedTuple

from jaxtyping import Array, Int


class TrainState(NamedTuple):
    """The number of steps taken, the network's variables and the optimizer's."""

    step: Int[Array, ""]
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: Any


def variables_of(state: TrainState) -> dict[str, Any]:
    """Return what the network reads of a state."""
    return {"params": state.params, "batch_stats": state.batch_stats}
