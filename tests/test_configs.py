"""The config files load from any folder and are valid; so is each row of a study."""

import itertools
import json
import runpy
from pathlib import Path

import pytest
from python_process import run_python

from vireid_jax.config import changed_keys, flat, validate, with_defaults
from vireid_jax.configs import find_config, get_config, list_configs
from vireid_jax.run.errors import UserError
from vireid_jax.weights.pretrained import shipped_weights

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = {f"{name}.py": CONFIGS / f"{name}.py" for name in list_configs()}
STUDIES = [name for name in FILES if name.startswith("ablations/")]


@pytest.mark.parametrize("name", FILES)
def test_a_config_is_valid_and_shows_its_command(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = runpy.run_path(str(FILES[name]))
    validate(module["get_config"]())
    name = name.removesuffix(".py")
    assert f"python -m vireid_jax.main --config {name}" in module["__doc__"]


@pytest.mark.parametrize("name", STUDIES)
def test_the_rows_of_a_study_are_valid_and_all_different(name):
    module = runpy.run_path(str(FILES[name]))
    configs = {row: validate(module["get_config"](row)) for row in module["ROWS"]}
    for one, other in itertools.combinations(configs.values(), 2):
        assert changed_keys(one) != changed_keys(other)
    # The row that a bare file name means is the bench itself, and the first.
    bench = runpy.run_path(str(FILES["walkers_bench.py"]))["get_config"]()
    if name == "ablations/method_nir.py":  # the bench on other walkers
        bench.data.options.variant = "nir"
    if name == "ablations/method_long.py":  # the bench in twice the time
        bench.schedule.epochs = bench.eval.every_epochs = 6.0
    assert flat(module["get_config"]()) == flat(bench)
    # A row says all it is about: upon the whole method it is the same as upon nothing.
    other = runpy.run_path(str(FILES["demo.py"]))["get_config"]
    for row, changes in module["ROWS"].items():
        found = flat(module["get_config"](row, other))
        assert changes.items() <= found.items()


@pytest.mark.parametrize("name", STUDIES)
def test_no_row_of_that_name(name):
    module = runpy.run_path(str(FILES[name]))
    with pytest.raises(ValueError, match="no row 'nine'") as caught:
        module["get_config"]("nine")
    assert str(list(module["ROWS"])) in str(caught.value)


def test_a_row_is_given_on_the_command_line(tmp_path):
    def run(argument):
        path = f"--config={FILES['ablations/sharing.py']}:{argument}"
        flags = (path, f"--workdir={tmp_path / 'run'}", "--config.data.name=none")
        done = run_python("-m", "vireid_jax.main", *flags)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "data set is 'none'" in run("2,separate_norm")  # after the config is stored
    model = json.loads((tmp_path / "run/config.json").read_text())["model"]
    assert (model["num_specific_stages"], model["separate_norm"]) == (2, True)
    assert "there is no row '3,norms'; valid values: ['0'," in run("3,norms")


@pytest.mark.parametrize("name", ["sysu_mm01.py", "regdb.py", "llcm.py", "custom.py"])
def test_a_rehearsal_is_small_and_needs_no_file(name):
    get_config = runpy.run_path(str(FILES[name]))["get_config"]
    whole, smoke = validate(get_config()), validate(get_config("smoke"))
    assert (whole.model.name, smoke.model.name) == ("osnet_x1_0", "osnet_x0_25")
    assert smoke.model.pretrained in shipped_weights()
    assert smoke.data.name == whole.data.name == name.removesuffix(".py")
    with pytest.raises(ValueError, match=r"'trail=3' is not an argument .*smoke"):
        get_config("trail=3")


def test_regdb_has_a_trial():
    get_config = runpy.run_path(str(FILES["regdb.py"]))["get_config"]
    assert get_config().data.variant == "trial_1"
    assert get_config("smoke,trial=10").data.variant == "trial_10"
    for wrong in ("trial", "trial=x", "smoke=1"):
        with pytest.raises(ValueError, match=f"'{wrong}' is not an argument"):
            get_config(wrong)


@pytest.mark.parametrize("text", ["demo", "regdb:trial=3,smoke", "ablations/sharing:2"])
def test_a_config_by_its_name_is_that_of_its_path(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, colon, argument = text.partition(":")
    path = f"{CONFIGS / name}.py{colon}{argument}"
    assert find_config(text) == find_config(path) == path
    assert flat(get_config(text)) == flat(get_config(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dmeo", r"dmeo; did you mean demo\? valid values: .*regdb"),
        ("runs/sharing.py", r"did you mean ablations/sharing\? .*FILE\.py"),
        ("_real", "no config _real"),
        ("demo:x", "no arguments; remove :x"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_valid_ones(text, words):
    with pytest.raises(UserError, match=words):
        get_config(text)


def test_a_removed_key_of_an_old_run_is_dropped_at_its_old_value():
    stored = get_config("demo").to_dict()
    stored["data"] |= {"workers": 0}
    stored["model"] |= {"part_width": "lite", "contrastive": False}
    assert flat(with_defaults(json.loads(json.dumps(stored)))) == flat(
        get_config("demo")
    )
    stored["model"]["part_width"] = "full"
    with pytest.raises(UserError, match=r"part_width='full'.* valid values: 'lite'"):
        with_defaults(stored)
    for wrong in ([], {"model": 3}, {"batch": {"images": "many"}}):
        with pytest.raises(UserError, match="stored config"):
            with_defaults(wrong)
