"""What training writes of itself: rows cut back, and a story, each warning once."""

import json
import logging
import struct
import sys
import warnings

import pytest
from rich.console import Console

from vireid_jax.run.writers import Journal, JsonLines, TensorBoard


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_after_the_restored_step_are_dropped_and_written_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = JsonLines(path, 0)
    for step in (2, 4, 6):
        first.write(step, "train", {"loss": 1 / step})
    first.write(4, "validation", {"mAP": 0.5})
    with path.open("a") as file:
        file.write('{"step": 8, "kind": "tr')  # its process died here
    second = JsonLines(path, 4)
    assert [(row["step"], row["kind"]) for row in rows_of(path)] == [
        (2, "train"),
        (4, "train"),
        (4, "validation"),
    ]
    second.write(6, "train", {"loss": 0.25})
    assert rows_of(path)[-1] == {"step": 6, "kind": "train", "loss": 0.25}


def events_of(folder):
    """Reads TensorBoard's events: length, its checksum, message, its checksum."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
    return found


def test_tensorboard_is_told_to_forget_what_comes_after_the_restored_step(tmp_path):
    for start, steps in ((0, (2, 4, 6)), (4, (6, 8))):
        writer = TensorBoard(tmp_path, start)
        for step in steps:
            writer.write(step, "train", {"loss": 1 / step, "note": "no number"})
        writer.close()
    scalars = [
        (event.step, value.tag, value.simple_value)
        for event in events_of(tmp_path)
        for value in event.summary.value
    ]
    assert [step for step, _, _ in scalars] == [2, 4, 6, 6, 8]
    assert {tag for _, tag, _ in scalars} == {"train/loss"}
    assert scalars[0][2] == 0.5
    starts = [e.step for e in events_of(tmp_path) if e.session_log.status == 1]
    assert starts[-1] == 5  # what was written of steps 5 and later goes


@pytest.fixture
def captured():
    logging.captureWarnings(False)  # a test that called main left it on, without effect
    logging.captureWarnings(True)
    yield
    logging.captureWarnings(False)


@pytest.mark.filterwarnings("always:each")
def test_the_journal_notes_each_warning_once_and_how_it_ended(
    tmp_path, captured, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["main.py", "--workdir=w"])
    path = tmp_path / "log.txt"

    def run(journal):
        journal.print("begun")
        for _ in range(3):
            warnings.warn("each of these", stacklevel=1)
            logging.getLogger("some.library").warning("disk is slow\nin detail")
            logging.getLogger("some.library").info("nothing")
        raise ValueError("too hot")

    journal = Journal(path, Console(quiet=True))
    with pytest.raises(ValueError, match="too hot"), journal:
        run(journal)
    with Journal(path, Console(quiet=True)):
        pass
    lines = [line[20:] for line in path.read_text().splitlines()]
    assert lines[0] == "--- main.py --workdir=w"
    assert lines[1] == "begun"
    assert "UserWarning: each of these" in lines[2]
    assert lines[3:] == [
        "warning: disk is slow",
        "ValueError: too hot",
        "--- main.py --workdir=w",
        "done",
    ]
    logging.getLogger("some.library").warning("after the end")
    assert "after" not in path.read_text()
