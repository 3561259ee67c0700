"""Checkpoints on disk; the only module that imports orbax.

A step folder holds three items: `model` (params and batch_stats), `optimizer` (step and
opt_state) and `about` (JSON: config, data set, versions, metrics). So an embedder reads
`model` and `about`, and nothing else.
"""

import contextlib
import functools
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from flax.traverse_util import unflatten_dict
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from vireid_jax.run.errors import UserError
from vireid_jax.run.runtime import only_errors
from vireid_jax.training.run_info import RunInfo
from vireid_jax.training.state import TrainState, variables_of
from vireid_jax.weights.pretrained import read_file

FOLDER = "checkpoints"
BEST_METRIC = "validation_mAP"
_ITEMS = ("model", "optimizer", "about")


class Checkpoints:
    """Save and restore a run's states; keep the latest and the best."""

    def __init__(
        self, workdir: str | Path, *, read_only: bool = False, validated: bool = True
    ):
        """Open `workdir/checkpoints`. The best has the highest validation mAP.

        `validated=False`: no save will have one, so orbax should not warn.
        """
        self.folder = Path(workdir).resolve() / FOLDER
        self._validated = validated
        metric = lambda metrics: metrics[BEST_METRIC]
        best = BestN(get_metric_fn=metric, n=1, keep_checkpoints_without_metrics=False)
        kept = [LatestN(1), best] if validated else [LatestN(1)]
        with only_errors():  # orbax: that a folder opened for reading is read only
            self._manager = ocp.CheckpointManager(
                self.folder,
                item_names=_ITEMS,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=AnyPreservationPolicy(kept),
                    best_fn=metric if validated else None,
                    best_mode="max",
                    cleanup_tmp_directories=not read_only,
                    read_only=read_only,
                    create=not read_only,
                ),
            )

    def save(
        self, state: TrainState, about: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Write a checkpoint in the background; `metrics` may hold BEST_METRIC.

        Raise UserError where the disk is too full for it, or was for the one before.
        """
        step = int(state.step)
        # The arrays, and a MiB for what orbax writes around them.
        self._needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**20
        if shutil.disk_usage(self.folder).free < self._needed:
            raise self._disk_full()
        # Orbax warns of a save without the metric that makes a best one.
        quiet = contextlib.nullcontext() if metrics else only_errors()
        with self._writing(), quiet:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardSave(variables_of(state)),
                    optimizer=ocp.args.StandardSave(
                        {"step": state.step, "opt_state": state.opt_state}
                    ),
                    about=ocp.args.JsonSave({**about, "metrics": dict(metrics)}),
                ),
                metrics=dict(metrics) or None,
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn orbax's error of a full disk into a UserError."""
        try:
            yield
        except (ValueError, OSError) as error:
            if any(words in str(error) for words in ("No space left", "quota")):
                raise self._disk_full() from error
            raise

    def _disk_full(self) -> UserError:
        free = shutil.disk_usage(self.folder).free
        return UserError(
            f"no room for a checkpoint in {self.folder}: {self._needed / 2**20:.1f} MiB"
            f" are needed, {free / 2**20:.1f} MiB free. {self.kept()}. Free some space,"
            " then run the same command again to resume"
        )

    def restore(self, target: TrainState) -> TrainState | None:
        """Return the latest state, placed as `target` says, or None if there is none.

        `target` holds arrays or ShapeDtypeStructs with shardings; the devices that
        saved it do not matter. Raise UserError where another network was saved, or
        where the latest checkpoint is incomplete.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        model = variables_of(target)
        self._check_complete(step, _ITEMS)
        self._check_fits(step, model)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardRestore(model),
                optimizer=ocp.args.StandardRestore(
                    {"step": target.step, "opt_state": target.opt_state}
                ),
            ),
        )
        return TrainState(**restored["model"], **restored["optimizer"])

    def _check_fits(self, step: int, target: Mapping[str, Any]) -> None:
        """Raise UserError unless `target` has the arrays that were saved at `step`.

        Orbax would cast another dtype silently, and does not name a wrong shape.
        """
        handler = ocp.StandardCheckpointHandler()
        stored = handler.metadata(epath.Path(self.folder / str(step) / "model"))
        saved, wanted = kinds(stored.tree), kinds(target)
        names = saved | wanted
        different = [name for name in names if saved.get(name) != wanted.get(name)]
        if different:
            first = different[0]
            raise UserError(
                f"the checkpoint of step {step} in {self.folder} is of another network:"
                f" {len(different)} arrays differ, the first is {first}:"
                f" {saved.get(first, 'absent')} there, {wanted.get(first, 'absent')} in"
                " this network. Give the config that began this run, or another"
                " --workdir"
            )

    def _check_complete(self, step: int, items: tuple[str, ...]) -> None:
        """Raise UserError unless all of `items` of `step` can be read.

        Orbax would fail in the middle of a restore, with tracebacks from threads.
        """
        broken = self._broken(step, items)
        if not broken:
            return
        others = [n for n in self._manager.all_steps() if n != step]
        complete = sorted(n for n in others if not self._broken(n, _ITEMS))
        advice = "no complete checkpoint is left; start a new run in another --workdir"
        if complete:
            advice = (
                f"complete: {complete}. To resume from there, delete this one: rm -r"
                f" {self.folder / str(step)}"
            )
        raise UserError(
            f"the checkpoint of step {step} in {self.folder} is incomplete, its"
            f" {broken} is missing or damaged; {advice}"
        )

    def _broken(self, step: int, items: tuple[str, ...]) -> str:
        """Return the first of `items` that cannot be read; "" if all can."""
        for item in items:
            folder = self.folder / str(step) / item
            try:
                if item == "about":
                    json.loads((folder / "metadata").read_text())
                    continue
                json.loads((folder / "_METADATA").read_text())
                base = {"driver": "file", "path": f"{folder}/"}
                spec = {"driver": "ocdbt", "base": base}
                store = tensorstore.KvStore.open(spec).result()
                reads = [store.read(key) for key in store.list().result()]
                for read in reads:
                    read.result()
                if not reads:
                    return item
            except (OSError, ValueError):
                return item
        return ""

    def restore_model(self, step: int) -> dict[str, Any]:
        """Return `{"params", "batch_stats"}` of `step` as arrays of NumPy.

        All that was saved: to trace the network for its shapes would take longer than
        reading. Raise UserError where they are incomplete.
        """
        self._check_complete(step, ("model",))
        folder = epath.Path(self.folder / str(step) / "model")
        with only_errors(), ocp.PyTreeCheckpointer() as reader:
            stored = reader.metadata(folder).item_metadata.tree
            plain = ocp.RestoreArgs(restore_type=np.ndarray)
            return reader.restore(
                folder, restore_args=jax.tree.map(lambda _: plain, stored)
            )

    def about(self, step: int) -> dict[str, Any]:
        """Return what was stored beside the state of `step`.

        Raise UserError where it is damaged.
        """
        self._check_complete(step, ("about",))
        return json.loads((self.folder / str(step) / "about" / "metadata").read_text())

    def find(self, which: str | int) -> int:
        """Return the step that "last", "best" or a number means.

        Raise UserError, naming the steps there are, if there is no such checkpoint.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise UserError(
                f"no checkpoint in {self.folder}; train first: python -m"
                " vireid_jax.main --config CONFIG --workdir DIR"
            )
        if which == "last":
            return steps[-1]
        if which == "best":
            # Without any metric, orbax returns the latest as the best.
            step = self._manager.best_step() if self._validated else None
            if step is None:
                raise UserError(
                    f"no checkpoint in {self.folder} has a validation mAP, so none is"
                    " best; use last, or train with"
                    " config.data.validation_identities > 0"
                )
            return step
        if which not in steps:
            raise UserError(
                f"no checkpoint of step {which} in {self.folder}; steps: {steps}, or"
                " last, or best"
            )
        return int(which)

    def kept(self) -> str:
        """Wait, and return a sentence: from which checkpoint a run would resume."""
        with contextlib.suppress(ValueError, OSError):  # of a full disk: raised before
            self._manager.wait_until_finished()
        names = [path.name for path in self.folder.iterdir()]
        steps = sorted(int(name) for name in names if name.isdigit())
        if not steps:
            return "No checkpoint was saved before"
        return f"The last checkpoint, of step {steps[-1]}, is complete"

    def wait(self) -> None:
        """Wait until all is on disk; raise UserError where that is full."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and close the folder; raise UserError where the disk is full."""
        with self._writing():
            self._manager.close()


def read(path: str | Path, which: str | int = "last") -> tuple[dict[str, Any], RunInfo]:
    """Return a checkpoint's variables, arrays of NumPy, and what made them.

    `path` is a run's workdir, its `checkpoints` folder, one step's folder, or a
    .safetensors file that `python -m vireid_jax.export` wrote; `which` is "last",
    "best" or a step of a workdir. Raise UserError
    where there is no such checkpoint.
    """
    which = int(which) if str(which).isdigit() else which
    path = Path(path).expanduser().resolve()
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the --workdir of a training run")
    if path.name.isdigit() and path.parent.name == FOLDER:
        path, which = path.parent, int(path.name)
    workdir = path.parent if path.name == FOLDER else path
    checkpoints = Checkpoints(workdir, read_only=True)
    step = checkpoints.find(which)
    about = RunInfo.from_json(checkpoints.about(step))
    variables = checkpoints.restore_model(step)
    checkpoints.close()
    return variables, about


def _read_safetensors(path: Path) -> tuple[dict[str, Any], RunInfo]:
    if not path.is_file():
        raise UserError(f"there is no file {path}; give one, or a run's --workdir")
    tensors, metadata = read_file(path)
    if "about" not in metadata:
        raise UserError(
            f"{path} has no description of its network; give one that python -m"
            " vireid_jax.export --format safetensors wrote"
        )
    about = RunInfo.from_json(json.loads(metadata["about"]))
    return unflatten_dict(tensors, sep="/"), about


def by_path(tree: Mapping[str, Any]) -> dict[str, Any]:
    """List the leaves of a tree by their paths: `params/head/neck/scale`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return {name(path): leaf for path, leaf in leaves}


def kinds(tree: Mapping[str, Any]) -> dict[str, str]:
    """List dtype and shape of every array, as `float32 (64,)`, by its path."""
    leaves = by_path(tree).items()
    return {path: f"{leaf.dtype} {tuple(leaf.shape)}" for path, leaf in leaves}


def abstract(tree: Any, sharding: Any) -> Any:
    """Turn arrays into shapes with `sharding`, one or a tree: for `restore`."""
    place = lambda s, x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, tree)
    return jax.tree.map(place, sharding, tree)
