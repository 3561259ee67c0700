"""The rival's worker: PyTorch in .venv-bench, which never imports vireid_jax.

`python -m benchmarks` starts it as `.venv-bench/bin/python -m benchmarks.rival JOB`.
"""

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from benchmarks.pipe import serve
from benchmarks.rival.network import TwoStreamOSNet, fuse, load

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def prepare(job):
    """Create the network of a job's variant, run it once and save its outputs."""
    torch.set_num_threads(job["threads"])
    given = load_file(job["given"])
    images = {name: given.pop(f"images/{name}") for name in ("visible", "infrared")}
    labels = given.pop("labels")
    network = TwoStreamOSNet(job["network"], job["classes"])
    load(network, given)
    memory_format = torch.contiguous_format
    if job["variant"] != "eager":
        memory_format = torch.channels_last
        network = network.to(memory_format=memory_format)
    if job["task"] == "eval":
        run = evaluator(network, images["visible"], job["variant"], memory_format)
    else:
        run = trainer(network, images, labels, job, memory_format)
    np.savez(job["outputs"], **run())
    return run, {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
    }


def normaliser(memory_format):
    """Return a function from uint8 NHWC images to the network's input."""
    gain = 1 / (255 * torch.tensor(STD))
    offset = torch.tensor(MEAN) / torch.tensor(STD)

    def normalise(images):
        x = images.float() * gain - offset
        return x.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)

    return normalise


def evaluator(network, images, variant, memory_format):
    """Return a function that embeds a batch of visible images."""
    normalise = normaliser(memory_format)
    network.eval()
    if variant in ("fused", "compiled"):
        fuse(network)
    if variant == "compiled":
        network = torch.compile(network)

    @torch.inference_mode()
    def run():
        return {"embeddings": network(normalise(images)).numpy()}

    return run


def trainer(network, images, labels, job, memory_format):
    """Return a function that takes one training step."""
    normalise = normaliser(memory_format)
    network.train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        [
            {
                "params": [p for p in parameters if p.ndim > 1],
                "weight_decay": job["weight_decay"],
            },
            {"params": [p for p in parameters if p.ndim == 1]},
        ],
        lr=job["learning_rate"],
        momentum=job["momentum"],
        nesterov=True,
    )
    forward = torch.compile(network) if job["variant"] == "compiled" else network
    both_labels = torch.cat([labels, labels]).long()

    def run():
        optimizer.zero_grad(set_to_none=True)
        both = (normalise(images[name]) for name in ("visible", "infrared"))
        pooled, logits = forward(*both)
        loss = functional.cross_entropy(
            logits, both_labels, label_smoothing=job["smoothing"]
        ) + hetero_center_triplet(pooled, job["shots"], job["margin"])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, job["clip_norm"])
        optimizer.step()
        return {"loss": loss.item(), "gradient_norm": norm.item()}

    return run


def hetero_center_triplet(pooled, shots, margin):
    """Pull an identity's two centers together, other identities' apart.

    Rows are visible images, then infrared ones, `shots` of each identity.
    """
    centers = pooled.unflatten(0, (-1, shots)).mean(1)
    identity = torch.arange(len(centers)) % (len(centers) // 2)
    same = identity[:, None] == identity
    distances = torch.cdist(centers, centers)
    positive = distances.masked_fill(~same, 0).max(1).values
    negative = distances.masked_fill(same, torch.inf).min(1).values
    return functional.relu(margin + positive - negative).mean()


if __name__ == "__main__":
    serve(prepare)
