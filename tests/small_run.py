"""Train a network so small that it compiles in seconds; tests start it as a process.

    python small_run.py --config=small_run.py --workdir=DIR --config.data.dir=DIR

Everything but the network is what `python -m vireid_jax.main` runs. KILL=place:n in the
environment kills the process (SIGKILL) when it is at the place for the n-th time; LIE=1
tells it that there is room on any disk; OTHER=packages or OTHER=images, that it has
others than it has.

    python small_run.py embed WORKDIR FILE.npy

writes the embeddings of some images by a checkpoint, and `small_run.py NAME ...` is the
command `vireid NAME ...`.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import flax.linen as nn
import numpy as np

from vireid_jax import models
from vireid_jax.__main__ import COMMANDS, main
from vireid_jax.config import default_config
from vireid_jax.models.heads import IdentityHead, l2_normalise
from vireid_jax.models.osnet import Stem


class Small(nn.Module):
    """A stem and the head."""

    num_classes: int
    features: int = 8

    @nn.compact
    def __call__(self, images, views, train=False):
        batch = images.shape[0]
        x = Stem(self.features, name="conv1")(
            images.reshape(-1, *images.shape[2:]), None, train
        )
        out = IdentityHead(self.num_classes, "per_modality", name="head")(
            x, views, train
        )
        out = {name: x.reshape(batch, -1, x.shape[-1]) for name, x in out.items()}
        return l2_normalise(out["neck"]), out


def create(name, *, num_classes, **options):
    """Replaces `models.create`, whatever the options."""
    return Small(num_classes)


def config_of(data_dir):
    """Return a config of 6 steps, two epochs, on nine tiny walkers."""
    c = default_config()
    c.data.name = "walkers"
    c.data.options.variant = "thermal"
    c.data.options.train_ids = 9
    c.data.options.test_ids = 6
    c.data.options.images_per_modality = 4
    c.data.options.height = 64
    c.data.options.width = 32
    c.data.dir = str(data_dir)
    c.data.size = (64, 32)
    c.data.validation_identities = 3
    c.batch.identities = 2
    c.batch.images = 2
    c.augment.pad = 2
    c.augment.third_view = False
    c.model.name = "osnet_x0_25"
    c.model.neck_norm = "per_modality"
    c.schedule.epochs = 1.0  # 6 steps
    c.eval.every_epochs = 0.5
    c.eval.batch_size = 16
    c.log.every_steps = 2
    return c


def get_config():
    """Return the config; the data folder comes with the command line."""
    return config_of("")


def images_of(rows=5):
    """Draw some images of noise."""
    return np.random.default_rng(0).integers(0, 256, (rows, 64, 32, 3), np.uint8)


def start(workdir, *flags, **environment):
    """Start a run of this file in a process; output is captured."""
    flags = (f"--config={__file__}", f"--workdir={workdir}", *flags)
    return start_process(*flags, **environment)


def start_process(*arguments, **environment):
    """Start this file with any arguments; output is captured."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Wait; return the exit code, what it printed, and its errors."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def arrays_of(workdir):
    """Read the last checkpoint as numpy arrays, whatever devices it was saved on."""
    import jax
    import orbax.checkpoint as ocp
    from etils import epath

    from vireid_jax.training.checkpoint import Checkpoints

    step = Checkpoints(workdir, read_only=True).find("last")
    folder = epath.Path(workdir) / "checkpoints" / str(step)
    found = {}
    for item in ("model", "optimizer"):
        kinds = ocp.StandardCheckpointHandler().metadata(folder / item).tree
        target = jax.tree.map(lambda kind: np.zeros(kind.shape, kind.dtype), kinds)
        with ocp.StandardCheckpointer() as checkpointer:
            found[item] = checkpointer.restore(folder / item, target)
    return found


# --- In that process ------------------------------------------------------------------


def die():
    """Kill this process, as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(place, count):
    """Arrange for death at the place; "save" dies while orbax writes."""
    from vireid_jax import train
    from vireid_jax.data.pk import PKStream
    from vireid_jax.run import files
    from vireid_jax.training.checkpoint import Checkpoints

    owner, name = {
        "stream": (PKStream, "__getitem__"),
        "step": (train.Meter, "add"),
        "log": (train.Meter, "mean"),
        "rewrite": (files.os, "replace"),
        "validation": (train, "validate_network"),
        "save": (Checkpoints, "save"),
        "test": (train, "evaluate_test_split"),
    }[place]
    original, left = getattr(owner, name), [count]

    def dying(*arguments, **options):
        left[0] -= 1
        if left[0] == 0 and place == "save":
            original(*arguments, **options)
            threading.Timer(0, die).start()
            return None
        if left[0] == 0:
            die()
        return original(*arguments, **options)

    setattr(owner, name, dying)


def pretend(what):
    """Make the process believe in other packages or another training set."""
    from vireid_jax.data.source import Records
    from vireid_jax.run import environment

    if what == "packages":
        environment.version = lambda package: "0"
    else:
        Records.fingerprint = property(lambda records: "another")


if __name__ == "__main__":
    models.create = create
    if sys.argv[1] == "embed":
        import vireid_jax

        embedder = vireid_jax.load(sys.argv[2])
        np.save(sys.argv[3], embedder.embed(images_of(), "infrared"))
        sys.exit()
    from vireid_jax.run import processes

    processes.HEARTBEAT_SECONDS = 10  # tests do not wait for jax's 100
    if "LIE" in os.environ:
        shutil.disk_usage = lambda _: SimpleNamespace(free=2**30)
    if "OTHER" in os.environ:
        pretend(os.environ["OTHER"])
    if "KILL" in os.environ:
        place, count = os.environ["KILL"].split(":")
        die_at(place, int(count))
    if sys.argv[1] not in COMMANDS:
        sys.argv.insert(1, "train")
    main()
