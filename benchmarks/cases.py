"""Cases and settings to measure; `--quick` has a small case of each."""

from dataclasses import asdict, dataclass
from typing import Any

CLASSES = 395  # identities of SYSU-MM01's training set

# glibc's defaults, and settings for large buffers; the same for both sides.
ALLOCATORS = {
    "out of the box": {},
    "tuned": {
        "MALLOC_MMAP_THRESHOLD_": "4294967296",
        "MALLOC_TRIM_THRESHOLD_": "34359738368",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    },
}

# Each adds to the one before it; "compiled" is torch.compile on top of all.
VARIANTS = {
    "train": ("eager", "channels_last", "compiled"),
    "eval": ("eager", "channels_last", "fused", "compiled"),
}

# The training settings of both sides.
RECIPE = {
    "learning_rate": 1e-4,
    "weight_decay": 5e-4,
    "momentum": 0.9,
    "clip_norm": 5.0,
    "smoothing": 0.1,
    "margin": 0.3,
}


@dataclass(frozen=True)
class Case:
    """A network and a batch; in training half of the images are infrared."""

    network: str
    height: int
    width: int
    images: int
    shots: int = 4  # of each identity and modality in a training batch

    def __str__(self) -> str:
        """Return the name in tables."""
        return f"{self.network} {self.height}x{self.width}, {self.images} images"

    def job(self, task: str, **more: Any) -> dict[str, Any]:
        """Return the job of a worker."""
        return {"task": task, "classes": CLASSES} | asdict(self) | RECIPE | more


FULL = (Case("osnet_x1_0", 256, 128, 64), Case("osnet_x0_25", 128, 64, 64))
QUICK = (Case("osnet_x0_25", 64, 32, 8, shots=2),)
# For the compile time, with the complete method; its parts need six rows.
WHOLE_METHOD = Case("osnet_x1_0", 288, 144, 64)
WHOLE_METHOD_QUICK = Case("osnet_x0_25", 96, 48, 8, shots=2)


@dataclass(frozen=True)
class Search:
    """Find the nearest `k` of a gallery for each query."""

    gallery: int
    dim: int
    queries: int
    k: int = 10

    def __str__(self) -> str:
        """Return the name in tables."""
        return f"top {self.k} of {self.gallery} x {self.dim}, {self.queries} queries"

    def job(self) -> dict[str, Any]:
        """Return the job of a worker."""
        return {"task": "search"} | asdict(self)


FULL_SEARCH = Search(100_000, 512, 64)
QUICK_SEARCH = Search(2_000, 64, 16)
