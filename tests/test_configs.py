"""The config files load from any folder and are valid; so is each row of a study."""

import itertools
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from vireid_jax.config import changed_keys, flat, validate
from vireid_jax.weights.pretrained import shipped_weights

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = {str(path.relative_to(CONFIGS)): path for path in CONFIGS.rglob("*.py")}
STUDIES = [name for name in FILES if name.startswith("ablations/")]


@pytest.mark.parametrize("name", FILES)
def test_a_config_is_valid_and_says_how_to_run_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = runpy.run_path(str(FILES[name]))
    validate(module["get_config"]())
    assert f"python -m vireid_jax.main --config configs/{name}" in module["__doc__"]


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
        command = [sys.executable, "-m", "vireid_jax.main", path]
        done = subprocess.run(
            [*command, f"--workdir={tmp_path / 'run'}", "--config.data.name=none"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "data set is 'none'" in run("2,separate_norm")  # after the config is stored
    model = json.loads((tmp_path / "run/config.json").read_text())["model"]
    assert (model["num_specific_stages"], model["separate_norm"]) == (2, True)
    assert "there is no row '3,norms'; give FILE.py:ROW, of ['0'," in run("3,norms")


@pytest.mark.parametrize("name", ["sysu_mm01.py", "regdb.py", "llcm.py", "custom.py"])
def test_a_rehearsal_is_small_and_needs_no_file(name):
    get_config = runpy.run_path(str(FILES[name]))["get_config"]
    whole, smoke = validate(get_config()), validate(get_config("smoke"))
    assert (whole.model.name, smoke.model.name) == ("osnet_x1_0", "osnet_x0_25")
    assert smoke.model.pretrained in shipped_weights()
    assert smoke.data.name == whole.data.name == name.removesuffix(".py")
    with pytest.raises(ValueError, match=r"'trail=3' is no argument .* of .*smoke"):
        get_config("trail=3")


def test_regdb_has_a_trial():
    get_config = runpy.run_path(str(FILES["regdb.py"]))["get_config"]
    assert get_config().data.variant == "trial_1"
    assert get_config("smoke,trial=10").data.variant == "trial_10"
    for wrong in ("trial", "trial=x", "smoke=1"):
        with pytest.raises(ValueError, match=f"'{wrong}' is no argument"):
            get_config(wrong)
