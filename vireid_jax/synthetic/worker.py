"""A rendering process: reads one job from stdin, writes images to stdout."""

import os
import sys

from vireid_jax.synthetic.generate import serve

if __name__ == "__main__":
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        os._exit(1)  # who asked is gone; Python would complain once more at its end
