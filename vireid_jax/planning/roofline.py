"""How long a step takes at the least: what it needs, divided by what a chip can do."""

from dataclasses import dataclass

from vireid_jax.planning.compiled import Collective, Facts
from vireid_jax.planning.hardware import IMAGES_PER_CORE, Slice


@dataclass(frozen=True)
class Load:
    """What a step takes from the hosts, all together."""

    images: int  # read from the data set, 2 P K
    bytes: int  # that cross to the chips
    cache: str  # config.data.cache


@dataclass(frozen=True)
class Estimate:
    """Seconds of one step by cause, each by itself.

    Nothing of a chip overlaps with its collectives here: the next layer waits for the
    statistics of a batch norm, and these are nearly all of them. The host works ahead.
    """

    terms: dict[str, float]
    images: int

    @property
    def on_chip(self) -> float:
        """Returns the seconds of the step but for collectives and input."""
        names = ("arithmetic", "instructions", "memory")
        return max(self.terms[name] for name in names)

    @property
    def seconds(self) -> float:
        """Returns the seconds of a step."""
        links = self.terms["link bandwidth"] + self.terms["link latency"]
        feed = max(self.terms["transfer"], self.terms["decoding"])
        return max(self.on_chip + links, feed)

    @property
    def bound(self) -> str:
        """Names the largest term."""
        return max(self.terms, key=self.terms.__getitem__)

    @property
    def images_per_second(self) -> float:
        """Returns the images read each second, by all chips together."""
        return self.images / self.seconds


def estimate(facts: Facts, where: Slice, load: Load) -> Estimate:
    """Estimates a step of the program `facts` on the chips of `where`.

    Facts of another compiler's program (`where.is_paper`) give arithmetic and memory
    alone, and of memory all bytes that the program accesses: what that chip kept in its
    vector memory would cross the main memory of this one.
    """
    chip = where.chip
    traffic = facts.bytes_accessed if where.is_paper else facts.traffic
    count = sum(c.count for c in facts.collectives.values())
    per_host = load.bytes / where.hosts / where.chips_per_host
    cores = where.hosts * where.cores_per_host
    rate = IMAGES_PER_CORE.get(load.cache)
    terms = {
        "arithmetic": facts.flops / chip.flops,
        "instructions": facts.cycles / chip.clock if chip.clock else 0.0,
        "memory": traffic / chip.bandwidth,
        "link bandwidth": moved(facts.collectives, where.chips)
        / (chip.links * where.ring_share),
        # To the farthest chip and back: nobody goes on before all have been heard.
        "link latency": count * 2 * where.hops * chip.hop,
        "transfer": per_host / chip.host,
        "decoding": load.images / (cores * rate) if rate else 0.0,
    }
    return Estimate(terms, load.images)


def moved(collectives: dict[str, Collective], chips: int) -> float:
    """Returns the bytes that each chip sends, with the usual ring algorithms.

    Of an all-reduce all bytes but a share go round twice; of the others, once. Results
    of a reduce-scatter are `1 / chips` of what was reduced.
    """
    rest = (chips - 1) / chips
    times = {"all-reduce": 2 * rest, "reduce-scatter": chips - 1}
    times |= {"collective-permute": float(chips > 1)}
    return sum(c.bytes * times.get(kind, rest) for kind, c in collectives.items())


@dataclass(frozen=True)
class Machine:
    """A compiled step, and what a slice would make of it."""

    name: str
    facts: Facts
    slice: Slice | None = None  # None: this machine, whose figures nobody noted
    estimate: Estimate | None = None

    @property
    def fits(self) -> bool | None:
        """Tells whether a chip's memory suffices; None where its size is unknown."""
        return self.slice and self.facts.memory <= self.slice.chip.memory
