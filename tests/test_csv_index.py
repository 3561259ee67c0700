"""One's own data in a CSV file: read as spreadsheets write it, bad lines by number."""

import json

import pytest
from data_sets import left, run

from vireid_jax.data.source import load_records

HEADER = "image,identity,camera,modality,split\n"
LINE = "images/0_c1_0.jpg,0,1,visible,train\n"
NO_IMAGE = LINE.replace("0_c1_0", "no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the column 'image' is missing from []; begin with image,id"),
        (HEADER, "has a header and no rows"),
        ("image;identity\n", "line 1: the column 'image' is missing"),
        (HEADER + LINE + NO_IMAGE, "line 3: image 'images/no.jpg' is missing from"),
        (HEADER + LINE.replace(",0,", ",bob,"), "line 2: identity is 'bob'; valid"),
        (HEADER + LINE.replace(",0,", f",{2**31},"), "identity is '2147483648'"),
        (HEADER + LINE.replace(",1,", ",-1,"), "line 2: camera is '-1'; valid values"),
        (HEADER + LINE.replace("visible", "rgb"), "modality is 'rgb'; valid values"),
        (HEADER + LINE.replace("train", "val"), "line 2: split is 'val'; valid values"),
        (HEADER + LINE + "\n" + LINE, "line 4: 'images/0_c1_0.jpg' is in line 2 too"),
        (HEADER + LINE.replace(",train", ""), "line 2: it has fewer columns than the"),
        (HEADER + LINE.replace("train", "train,x"), "line 2: it has more columns than"),
        (HEADER + LINE.replace("images/", "../"), "is not below"),
        (HEADER + LINE.replace(".jpg", ".gif"), "'images/0_c1_0.gif' has no suff"),
        (HEADER + '"images/0', "is not a CSV file in UTF-8"),
    ],
)
def test_a_bad_line_of_a_csv_is_named(release, tmp_path, text, message):
    root, data = release("custom"), tmp_path / "data"
    (root / "records.csv").write_text(text)
    error = run("custom", root, data=data)
    assert f"{root}/records.csv" in error
    assert message in error
    assert not [path for path in left(data) if "1.0.0" in path]


def test_people_in_both_splits_are_refused_and_an_empty_split_is_reported(
    release, tmp_path
):
    root, data = release("custom"), tmp_path / "data"
    header, *rows = (root / "records.csv").read_text().splitlines()
    test = [row for row in rows if row.endswith(",test")]
    leak = test[0].replace(",test", ",train")
    leak = leak.replace(leak.split(",")[0], rows[0].split(",")[0])
    (root / "records.csv").write_text("\n".join([header, leak, *rows[1:]]))
    error = run("custom", root, data=data)
    assert "are in train and in test (1 in all)" in error
    assert "are in train and in test" in run("custom", root, "--check", data=data)
    (root / "records.csv").write_text("\n".join([header, *test]))
    error = run("custom", root, "--check", data=data)
    assert "the first being \"no images of 'train'\"" in error


def test_the_csv_is_found_or_asked_for(release, tmp_path):
    root, data = release("custom"), tmp_path / "data"
    error = run("custom", root / "nowhere", data=data)
    assert "does not exist; give a CSV file" in error
    (root / "more.csv").touch()
    error = run("custom", root, data=data)
    assert "holds 2 CSV files (more.csv, records.csv); give the file itself" in error
    assert run("custom", root / "records.csv", "--config", "mine", data=data) == ""
    info = json.loads((data / "custom/mine/1.0.0/dataset_info.json").read_text())
    assert {split["name"] for split in info["splits"]} == {"train", "test"}


def test_a_spreadsheets_csv_is_read(release, tmp_path):
    """With a byte-order mark, other line ends, more columns in another order."""
    root = release("custom")
    text = "\r\n".join(
        ["split,camera,note,identity,modality,image",
         'train,1,"a, b",0,visible,images/0_c1_0.jpg', ""]
    )  # fmt: skip
    (root / "records.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert run("custom", root, data=tmp_path) == ""
    assert load_records("custom", "train", config=None, data_dir=tmp_path).filename == [
        "images/0_c1_0.jpg"
    ]
