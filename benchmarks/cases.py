"""What is measured, and under which settings; `--quick` has a small case of each."""

from dataclasses import asdict, dataclass
from typing import Any

CLASSES = 395  # identities of SYSU-MM01's training set

# As they are, and as someone who knows glibc would set them, for both sides alike.
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

# Both sides train alike: what is not a shape stands here, once.
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
    """A network and a batch; when training, half of the images are infrared."""

    network: str
    height: int
    width: int
    images: int
    shots: int = 4  # of each identity and modality in a training batch

    def __str__(self) -> str:
        """Names it in tables."""
        return f"{self.network} {self.height}x{self.width}, {self.images} images"

    def job(self, task: str, **more: Any) -> dict[str, Any]:
        """Describes it for a worker."""
        return {"task": task, "classes": CLASSES} | asdict(self) | RECIPE | more


FULL = (Case("osnet_x1_0", 256, 128, 64), Case("osnet_x0_25", 128, 64, 64))
QUICK = (Case("osnet_x0_25", 64, 32, 8, shots=2),)
# Of the compile time, where the whole method is trained; its parts need six rows.
WHOLE_METHOD = Case("osnet_x1_0", 288, 144, 64)
WHOLE_METHOD_QUICK = Case("osnet_x0_25", 96, 48, 8, shots=2)


@dataclass(frozen=True)
class Search:
    """Queries against a gallery, whose nearest `k` are wanted."""

    gallery: int
    dim: int
    queries: int
    k: int = 10

    def __str__(self) -> str:
        """Names it in tables."""
        return f"top {self.k} of {self.gallery} x {self.dim}, {self.queries} queries"

    def job(self) -> dict[str, Any]:
        """Describes it for a worker."""
        return {"task": "search"} | asdict(self)


FULL_SEARCH = Search(100_000, 512, 64)
QUICK_SEARCH = Search(2_000, 64, 16)
