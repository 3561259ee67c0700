"""Export the rival as PyTorch does it: uint8 images in, L2-normalised embeddings out.

`python -m benchmarks.deployment` starts it as `.venv-bench/bin/python -m
benchmarks.rival.to_onnx JOB`. Its norms are folded first, for speed.
"""

import json
import sys

import torch
from safetensors.torch import load_file

from benchmarks.rival.__main__ import normaliser
from benchmarks.rival.network import TwoStreamOSNet, fuse, load


class Embedder(torch.nn.Module):
    """Normalise and embed visible images."""

    def __init__(self, network):
        """Wrap a network in evaluation mode."""
        super().__init__()
        self.network = network
        self.normalise = normaliser(torch.contiguous_format)

    def forward(self, images):
        """Map uint8 `[batch, H, W, 3]` to float32 `[batch, D]`."""
        return self.network(self.normalise(images))


def main():
    """Run the command."""
    job = json.loads(sys.argv[1])
    given = load_file(job["given"])
    images = given.pop("images/visible")
    tensors = {
        k: x for k, x in given.items() if not k.startswith(("images/", "labels"))
    }
    network = TwoStreamOSNet(job["network"], job["classes"])
    load(network, tensors)
    fuse(network)
    torch.onnx.export(
        Embedder(network).eval(),
        (images,),
        job["path"],
        input_names=["images"],
        output_names=["embedding"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
    )


if __name__ == "__main__":
    main()
