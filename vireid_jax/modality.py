"""The two modalities, in the order in which every array and view lists them."""

MODALITIES = ("visible", "infrared")
