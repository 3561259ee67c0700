"""From a TFDS data set to batches of uint8 images, augmented on the device.

`source` indexes a split, `pk` draws the identities and images of every step, `pipeline`
decodes them, `augment` runs inside the jitted train step.
"""
