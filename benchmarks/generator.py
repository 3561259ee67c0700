"""Time the synthetic generator on one core: `python -m benchmarks.generator`.

Print the best and the median of ten rounds beside the target. On a shared machine the
best is closest to the program's own speed.
"""

import statistics
import time

import cv2

from vireid_jax.synthetic import PRESETS, generate, plan

SIZES = ((128, 64), (288, 144))
TARGETS = {(128, 64): 500, (288, 144): 250}


def main():
    cv2.setNumThreads(1)
    print("images/s/core, all nuisances on, JPEG included")
    print("variant   size       best  median  target")
    for variant in ("thermal", "nir"):
        for size in SIZES:
            specs = plan(variant, range(20), 10)
            world = {"seed": 0, "size": size, "knobs": PRESETS["easy"], "workers": 1}
            for _ in generate(specs[:100], **world):
                pass  # backgrounds are drawn once per process
            rates = []
            for _ in range(10):
                start = time.process_time()
                for _ in generate(specs, **world):
                    pass
                rates.append(len(specs) / (time.process_time() - start))
            shape = f"{size[0]}x{size[1]}"
            best, median = max(rates), statistics.median(rates)
            print(
                f"{variant:8}  {shape:8} {best:6.0f}  {median:6.0f}  {TARGETS[size]:6}"
            )


if __name__ == "__main__":
    main()
