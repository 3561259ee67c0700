"""A procedural world of people seen in visible light and in the infrared.

Licence-free, deterministic and synthetic: its numbers do not compare with real ones.
"""

from vireid_jax.synthetic.generate import generate, render
from vireid_jax.synthetic.knobs import PRESETS, Knobs, preset
from vireid_jax.synthetic.plan import CAMERAS, Spec, plan

__all__ = [
    "CAMERAS", "PRESETS", "Knobs", "Spec", "generate", "plan", "preset", "render",
]  # fmt: skip
