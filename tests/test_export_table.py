"""The table of docs/deployment.md: who is timed when, and what is written."""

import time

import numpy as np

from benchmarks import deployment
from benchmarks.deployment import Timed, against_the_rival, in_turn, table


def test_all_take_turns_and_who_begins_changes():
    said = []

    def run_of(name, seconds):
        def run(given):
            said.append((name, len(given[0])))
            time.sleep(seconds)

        return run

    runs = {"a": run_of("a", 0.001), "b": run_of("b", 0.02)}
    seconds = in_turn(runs, np.zeros((8, 2, 2, 3), np.uint8), rounds=2)
    # Each runs once unmeasured before it is timed.
    order = [name for name, count in said if count == 1][::2]
    assert order == ["b", "a", "a", "b"]
    assert {count for _, count in said} == {1, 8}
    assert len(seconds["a"][1]) == len(seconds["b"][8]) == 2
    assert min(seconds["b"][1]) >= 0.02


def test_what_is_written():
    name = deployment.rival_title()
    ours = name.partition(", ")[2]
    timed = [
        Timed("osnet_x1_0", ours, 2**21, {1: [0.02] * 3, 8: [0.1] * 3}),
        Timed("osnet_x1_0", name, 2**21, {1: [0.03] * 3, 8: [0.1] * 3}),
    ]
    assert table(timed).splitlines() == [
        "| network | runtime, precision | MiB | ms, 1 image | ms, 8 images |",
        "|---|---|---:|---:|---:|",
        f"| `osnet_x1_0` | {ours} | 2.00 | 20.0 | 100.0 |",
        f"| `osnet_x1_0` | {name} | 2.00 | 30.0 | 100.0 |",
    ]
    said = against_the_rival(timed)
    assert "1.500 times ours for 1 image (95% interval 1.500 to 1.500)" in said
    assert "1.000 times ours for 8 images" in said
    assert against_the_rival(timed[:1]) == ""
