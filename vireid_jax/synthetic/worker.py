"""A rendering process: reads one job from stdin, writes images to stdout."""

import sys

from vireid_jax.synthetic.generate import serve

if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
