"""The `walkers` data set: procedural people, visible and infrared."""
