"""The synthetic world: determinism, the plan, knobs, the command line."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_process import run_python

import vireid_jax
from vireid_jax.synthetic import PRESETS, Knobs, generate, plan, preset, render
from vireid_jax.synthetic.__main__ import main
from vireid_jax.synthetic.identity import person
from vireid_jax.synthetic.sheet import contact_sheet

EASY, SIZE = PRESETS["easy"], (64, 32)


def digests(specs, workers, **changes):
    world = {"seed": 3, "size": SIZE, "knobs": EASY, **changes}
    return [
        (spec.filename, hashlib.sha256(data + mask.tobytes()).hexdigest())
        for spec, data, mask in generate(specs, workers=workers, **world)
    ]


def test_bytes_and_order_do_not_depend_on_the_number_of_workers():
    specs = [s for v in ("thermal", "nir") for s in plan(v, range(3), 10)]
    alone = digests(specs, workers=1)
    assert [name for name, _ in alone] == [spec.filename for spec in specs]
    assert alone == digests(specs, workers=2) == digests(specs, workers=3)


def test_an_image_depends_on_its_own_spec_only():
    alone = dict(digests(plan("thermal", [7], 2), workers=1))
    among = dict(digests(plan("thermal", [8, 6, 7], 4), workers=1))
    assert alone.items() <= among.items()


def test_stopping_early_ends_the_workers():
    specs = plan("thermal", range(20), 10)
    world = {"seed": 0, "size": SIZE, "knobs": EASY, "workers": 2}
    made = generate(specs, **world)
    assert next(made)[0] == specs[0]
    made.close()  # would hang, or warn of a running process, if it did not


def test_a_caller_without_a_main_guard_may_use_several_workers(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import sys\n"
        "from vireid_jax.synthetic import PRESETS, generate, plan\n"
        "specs = plan('nir', range(5), 10)\n"
        "world = dict(seed=3, size=(64, 32), knobs=PRESETS['easy'], workers=2)\n"
        "print(sum(len(data) for _, data, _ in generate(specs, **world)))\n"
        "assert not {'jax', 'tensorflow'} & set(sys.modules)\n"
    )
    env = {"PYTHONPATH": str(Path(vireid_jax.__file__).parents[1])}
    done = run_python(script, env=env)
    assert done.returncode == 0, done.stderr
    world = {"seed": 3, "size": SIZE, "knobs": EASY, "workers": 1}
    here = sum(len(data) for _, data, _ in generate(plan("nir", range(5), 10), **world))
    assert done.stdout == f"{here}\n"


@settings(max_examples=15, deadline=None)
@given(
    identity=st.integers(0, 2**31),
    seed=st.integers(0, 2**63),
    variant=st.sampled_from(["thermal", "nir"]),
    difficulty=st.sampled_from(sorted(PRESETS)),
    size=st.sampled_from([(32, 16), (96, 48), (100, 60), (288, 144), (64, 64)]),
)
def test_any_image_renders_in_shape_with_a_person_in_it(
    identity, seed, variant, difficulty, size
):
    for spec in plan(variant, [identity], 1):
        shot = render(spec, seed=seed, size=size, knobs=PRESETS[difficulty])
        assert shot.image.shape == (*size, 3)
        assert shot.image.dtype == shot.silhouette.dtype == np.uint8
        assert shot.silhouette.shape == (32, 16)
        assert shot.image.std() > 4
        if spec.modality == "infrared":
            assert (shot.image == shot.image[..., :1]).all()


def test_most_of_a_silhouette_is_there():
    shots = [
        render(spec, seed=1, size=SIZE, knobs=EASY).silhouette / 255
        for spec in plan("thermal", range(30), 1)
    ]
    assert 0.12 < np.mean(shots) < 0.4
    assert np.mean([shot[:, 6:10].mean() for shot in shots]) > 0.5
    assert np.mean([shot[:8, :3].mean() for shot in shots]) < 0.02


def test_people_do_not_depend_on_who_else_exists_but_differ_from_each_other():
    first, second = person(0, 11, EASY), person(0, 12, EASY)
    person.cache_clear()
    again = person(0, 11, EASY)
    assert again.body == first.body
    assert again.clothes == first.clothes
    np.testing.assert_array_equal(again.surfaces, first.surfaces)
    assert first.body != second.body
    assert first.clothes != second.clothes
    assert person(1, 11, EASY).body != first.body


def test_lookalikes_share_clothes_but_not_bodies():
    knobs = Knobs(lookalikes=1.0)
    first, second, third = (person(0, identity, knobs) for identity in (40, 41, 42))
    assert first.clothes == second.clothes != third.clothes
    np.testing.assert_array_equal(first.surfaces, second.surfaces)
    assert first.body != second.body
    assert person(0, 41, EASY).clothes != person(0, 40, EASY).clothes


def test_body_spread_zero_makes_all_bodies_alike():
    knobs = Knobs(body_spread=0.0)
    assert person(0, 1, knobs).body == person(0, 2, knobs).body


def test_plan_deals_the_cameras_of_each_variant():
    specs = plan("nir", range(3, 5), 8)
    seen = {(s.modality, s.camera) for s in specs}
    visible = {("visible", camera) for camera in (1, 2, 4, 5)}
    assert seen == visible | {("infrared", 3), ("infrared", 6)}
    assert len(specs) == 2 * 16
    names = [spec.filename for spec in specs]
    assert names == sorted(set(names))
    assert {spec.camera for spec in plan("thermal", [0], 2)} == {1, 2}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Knobs(modality_gap=1.5), "modality_gap=1.5: valid values are 0 to 1"),
        (lambda: Knobs(occlusion=float("nan")), "occlusion=nan: valid values"),
        (lambda: preset("brutal"), "easy, mid, hard"),
        (lambda: preset("easy", colour=1.0), "modality_gap"),
        (lambda: plan("xray", [0]), "thermal"),
        (lambda: plan("nir", [-1]), "start at 0"),
        (lambda: plan("nir", [1], 0), "at least 1"),
    ],
)
def test_an_error_names_the_value_and_the_valid_ones(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_sizes_and_worker_counts_are_errors():
    spec = plan("nir", [0], 1)[0]
    for size in ((8, 8), (64, 8), (64, 200)):
        with pytest.raises(ValueError, match=r"\(32, 16\)"):
            render(spec, seed=0, size=size, knobs=EASY)
    with pytest.raises(ValueError, match="at least 1"):
        next(generate([spec], seed=0, size=SIZE, knobs=EASY, workers=0))


def test_sheet_holds_one_row_a_person_and_a_block_a_band():
    one, two = (
        contact_sheet(("thermal", "nir"), range(n), seed=0, size=SIZE, knobs=EASY)
        for n in (1, 2)
    )
    assert two.shape[0] - one.shape[0] == SIZE[0] + 4  # an image and its margins
    assert one.shape[1] > 3 * 4 * SIZE[1]


def test_command_line_writes_sheet_and_manifest(tmp_path):
    sheet, manifest = tmp_path / "sheet.png", tmp_path / "manifest.tsv"
    world = ["--variant", "thermal", "--ids", "2", "--images", "2", "--height", "64"]
    main([*world, "--sheet", str(sheet), "--manifest", str(manifest)])
    assert cv2.imread(str(sheet)).shape[2] == 3
    lines = dict(line.split("\t") for line in manifest.read_text().splitlines())
    specs = plan("thermal", range(2), 2)
    assert list(lines) == [spec.filename for spec in specs]
    _, data, _ = next(generate(specs, seed=0, size=SIZE, knobs=EASY))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert lines[specs[0].filename] == hashlib.sha256(pixels.tobytes()).hexdigest()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--sheet", "x.png", "--difficulty", "brutal"],
        ["--sheet", "x.png", "--variant", "xray"],
        ["--sheet", "x.png", "--ids", "none"],
        ["--sheet", "x.png", "--ids", "0"],
        ["--manifest", "/no/such/folder/x.tsv", "--ids", "1"],
    ],
)
def test_command_line_reports_a_bad_value_in_one_line(arguments):
    with pytest.raises(SystemExit, match=r"^error: [^\n]+$"):
        main(arguments)


def test_pixels_are_those_of_the_first_release():
    """Golden: a change here is a new version of the data set, on purpose only."""
    hashes = hashlib.sha256()
    for variant in ("thermal", "nir"):
        for spec in plan(variant, range(4), 3):
            shot = render(spec, seed=0, size=SIZE, knobs=PRESETS["hard"])
            hashes.update(shot.image.tobytes() + shot.silhouette.tobytes())
    assert hashes.hexdigest()[:16] == "8efd036534352e34"
