"""The rival of the search: numpy's product and partial sort, as a worker.

`python -m benchmarks --only search` starts it as `python -m benchmarks.search JOB`.
"""

import numpy as np

from benchmarks.pipe import Job, serve


def features_of(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Draw queries and a gallery of unit length."""
    rng = np.random.default_rng(0)
    shapes = (job["queries"], job["dim"]), (job["gallery"], job["dim"])
    features = [rng.standard_normal(shape, np.float32) for shape in shapes]
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in features)


def prepare(job: Job):
    """Return a function that finds the nearest rows; save its outputs."""
    queries, gallery = features_of(job)

    def run():
        similarities = queries @ gallery.T
        rows = np.argpartition(similarities, -job["k"], axis=1)[:, -job["k"] :]
        nearest = np.take_along_axis(similarities, rows, axis=1)
        order = np.argsort(-nearest, axis=1)
        return {
            "similarities": np.take_along_axis(nearest, order, axis=1),
            "rows": np.take_along_axis(rows, order, axis=1),
        }

    np.savez(job["outputs"], **run())
    return run, {"numpy": np.__version__}


if __name__ == "__main__":
    serve(prepare)
