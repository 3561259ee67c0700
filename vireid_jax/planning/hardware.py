"""Figures of chips and of the slices they come in; nothing here is measured by us."""

import difflib
from dataclasses import dataclass

from vireid_jax.run.errors import UserError

# Images of 288x144 a second and core of AMD EPYC (Zen 4), measured: decoding 8.7 kB
# JPEGs with OpenCV (config.data.cache "none"), copying decoded ones ("host"). Nothing
# else was done, so a pipeline is slower.
IMAGES_PER_CORE = {"none": 5501, "host": 6111}


@dataclass(frozen=True)
class Chip:
    """What one chip can do at best, in FLOP/s, bytes, bytes/s and seconds."""

    name: str
    flops: float  # bfloat16
    memory: float
    bandwidth: float  # of its memory
    links: float  # to other chips, all together, one way
    host: float  # from its host
    clock: float = 0.0  # cycles a second; 0: no cycles are counted
    hop: float = 1e-6  # for the first byte to the next chip


CHIPS = {
    # cloud.google.com/tpu/docs/v5e: 197 TFLOP/s, 16 GB, 819 GB/s, ICI 1600 Gb/s.
    # PCIe and the microsecond a hop: jax-ml.github.io/scaling-book, chapter 2.
    # The clock follows from the peak: 4 matrix units of 128x128 multiply-adds.
    "v5e": Chip("TPU v5e", 197e12, 16e9, 819e9, 200e9, 16e9, 1.5e9),
    # cloud.google.com/tpu/docs/v6e: 918 TFLOP/s, 32 GB, 1640 GB/s, ICI 3584 Gb/s.
    # The clock follows from the peak: 4 matrix units of 256x256 multiply-adds.
    "v6e": Chip("TPU v6e", 918e12, 32e9, 1640e9, 448e9, 32e9, 1.75e9),
    # NVIDIA H100 data sheet, SXM: 989 TFLOP/s dense, 80 GB, 3.35 TB/s, NVLink 900 GB/s
    # both ways, PCIe 5 x16 128 GB/s both ways.
    "h100": Chip("H100 SXM", 989e12, 80e9, 3.35e12, 450e9, 64e9),
    # NVIDIA A100 80GB data sheet, SXM: 312 TFLOP/s dense, 80 GB, 2039 GB/s, NVLink
    # 600 GB/s both ways, PCIe 4 x16 64 GB/s both ways.
    "a100": Chip("A100 SXM 80GB", 312e12, 80e9, 2.039e12, 300e9, 32e9),
}


@dataclass(frozen=True)
class Slice:
    """Some chips, wired as a rectangle, and the hosts that feed them."""

    name: str
    chip: Chip
    shape: tuple[int, int]
    chips_per_host: int
    cores_per_host: int  # hyperthreads, as clouds count them
    compiler: str  # whose program the estimate is from: "v5e" or "v6e"

    @property
    def chips(self) -> int:
        """Counts the chips."""
        return self.shape[0] * self.shape[1]

    @property
    def hosts(self) -> int:
        """Counts the machines."""
        return self.chips // self.chips_per_host

    @property
    def is_paper(self) -> bool:
        """Tells whether another chip's compiler stands in for this one's."""
        return self.chip is not CHIPS[self.compiler]

    @property
    def topology(self) -> str:
        """Names it as libtpu does: `v5e:2x4`."""
        return f"{self.compiler}:{self.shape[0]}x{self.shape[1]}"

    @property
    def host_bounds(self) -> tuple[int, int, int]:
        """Returns the rectangle of one host's chips, as libtpu wants it."""
        return {1: (1, 1, 1), 4: (2, 2, 1), 8: (2, 4, 1)}[self.chips_per_host]

    @property
    def ring_share(self) -> float:
        """Returns which part of the links works in a ring.

        A torus of 16 chips a side is closed; in a smaller slice the lines are open, and
        a ring on a line goes there and back on the same links.
        """
        return 1.0 if min(self.shape) >= 16 else 0.5

    @property
    def hops(self) -> int:
        """Counts the links between the two chips that are farthest apart."""
        reach = lambda side: side // 2 if side >= 16 else side - 1
        return sum(map(reach, self.shape))


# cloud.google.com/tpu/docs/v5e and .../v6e, "Configurations": the shapes of slices.
_SHAPES = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8)}
_SHAPES |= {128: (8, 16), 256: (16, 16)}
# vCPUs of the machine types ct5lp-hightpu-{1,4,8}t and ct6e-standard-{1,4,8}t.
_CORES = {"v5e": {1: 24, 4: 112, 8: 224}, "v6e": {1: 44, 4: 180, 8: 180}}


def _slices() -> dict[str, Slice]:
    found = {}
    for kind, cores in _CORES.items():
        for count, shape in _SHAPES.items():
            each = count if count <= 8 else 4
            name = f"{kind}-{count}"
            found[name] = Slice(name, CHIPS[kind], shape, each, cores[each], kind)
    for kind in ("h100", "a100"):  # on paper; 16 cores beside it are our choice
        found[kind] = Slice(kind, CHIPS[kind], (1, 1), 1, 16, "v5e")
    return found


SLICES = _slices()


def find_slice(name: str) -> Slice:
    """Returns the slice of a name such as `v5e-8` or `h100`.

    Raises UserError naming the legal ones.
    """
    if name in SLICES:
        return SLICES[name]
    close = difflib.get_close_matches(name, SLICES, 1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise UserError(f"there is no topology {name!r}; {meant}Legal are {list(SLICES)}")
