"""How hard a synthetic world is: physical, named knobs and three presets."""

import dataclasses

from vireid_jax.run.errors import UserError


@dataclasses.dataclass(frozen=True)
class Knobs:
    """Hold what makes one world harder than another; every knob is physical.

    Raise UserError, with the valid values, for a knob out of range.
    """

    modality_gap: float = 1.0
    """1: a garment's NIR albedo is drawn independently of its visible colour;
    0: NIR is the grey image. Thermal has no such link at any value."""
    heading_range: float = 63.0
    """Degrees a person may turn away from facing the camera, to either side."""
    occlusion: float = 0.10
    """Probability of a pole or a car in front of the person."""
    second_person: float = 0.08
    """Probability of a passer-by, before or behind the person."""
    camera_spread: float = 0.5
    """How far viewpoint, crop, blur and noise vary; 0 to 1."""
    light_spread: float = 0.5
    """How far light, exposure and ambient temperature vary; 0 to 1."""
    body_spread: float = 1.0
    """Scale of the differences between bodies; 0 makes all bodies alike."""
    lookalikes: float = 0.0
    """Probability that two neighbour identities wear the same clothes."""

    def __post_init__(self):
        """Check every range."""
        highest = {"heading_range": 180.0, "body_spread": 2.0}
        for knob, value in vars(self).items():
            top = highest.get(knob, 1.0)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= top:
                raise UserError(f"knob {knob}={value!r}: valid values are 0 to {top:g}")


PRESETS: dict[str, Knobs] = {
    "easy": Knobs(),
    "mid": Knobs(
        heading_range=110.0, occlusion=0.25, second_person=0.2, camera_spread=0.75,
        light_spread=0.75, lookalikes=0.25,
    ),
    "hard": Knobs(
        heading_range=180.0, occlusion=0.4, second_person=0.3, camera_spread=1.0,
        light_spread=1.0, body_spread=0.8, lookalikes=0.5,
    ),
}  # fmt: skip


def preset(name: str, **overrides: float) -> Knobs:
    """Return the named preset with some knobs replaced.

    Raise UserError for an unknown preset or knob.
    """
    if name not in PRESETS:
        raise UserError(f"difficulty {name!r} is unknown: choose {', '.join(PRESETS)}")
    knobs = PRESETS[name]
    for knob in overrides.keys() - vars(knobs):
        raise UserError(f"knob {knob!r} is unknown: choose among {list(vars(knobs))}")
    return dataclasses.replace(knobs, **overrides)
