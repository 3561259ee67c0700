"""What a training step will take on chips, also on chips that are not here.

`compiled` reads a compiled program, `hardware` holds the figures of chips, `roofline`
divides the first by the second, and `ahead` compiles for TPUs without one.
"""
