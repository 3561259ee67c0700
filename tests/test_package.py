"""The package as others meet it: installed, as a wheel, and from a clone alone."""

import json
import re
import shutil
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from python_process import run_python
from small_embedder import embedder_of, fill

import vireid_jax
from vireid_jax import models, protocols
from vireid_jax.embed import embedder

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    *PROJECT["dependencies"],
    *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
]
METADATA_OF_BUILDERS = ("*.py", "*.md", "*.bib", "*.txt", "*.tsv")


def python(*arguments, cwd, path=""):
    """Run Python in `cwd`, with `path` before all else; return what it printed."""
    environment = {"PYTHONPATH": str(path), "PYTHONWARNINGS": "ignore"}
    done = run_python(*arguments, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Uses the package through its doors, and tells where each part came from.
TOUR = """
import sys, vireid_jax
import vireid_jax.datasets.walkers.walkers_dataset_builder as builder
from vireid_jax import models
from vireid_jax.data.source import load_records

tiny = {"train_ids": 1, "test_ids": 1, "images_per_modality": 1}
records = load_records("walkers", "test", config=tiny, data_dir=sys.argv[1])
assert len(records) == 2 and records.image(0, (32, 16)).shape == (32, 16, 3)
models.create("osnet_x0_25")
for module in (vireid_jax, builder, models):
    print(module.__file__)
"""


# Resolves what `vireid train --config demo` starts with: the recipe and its builder.
RECIPES = """
import importlib.metadata, vireid_jax
from vireid_jax.config import validate
from vireid_jax.configs import list_configs
from vireid_jax.data.builders import find_builder
for name in list_configs():
    validate(vireid_jax.get_config(name))
config = vireid_jax.get_config("regdb:trial=3")
builder = find_builder("regdb", config.data.variant, "data")
assert builder.builder_config.name == "trial_3"
(script,) = importlib.metadata.distribution("vireid-jax").entry_points
assert (script.name, script.load().__module__) == ("vireid", "vireid_jax.__main__")
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of what a build reads, so that no build leaves anything in the tree."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("vireid_jax", "configs", "datasets"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    return folder


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory):
    """The built wheel, unpacked as pip would."""
    out = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--wheel", "--no-isolation", "-o", out, clone, cwd=out)
    (file,) = out.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_tests_run_the_tree_they_are_in():
    assert Path(vireid_jax.__file__) == ROOT / "vireid_jax/__init__.py"
    # An egg-info folder in the tree also counts as a distribution; it has no origin.
    for installed in metadata.distributions(name="vireid-jax"):
        if origin := installed.read_text("direct_url.json"):
            assert installed.version == vireid_jax.__version__
            assert json.loads(origin)["dir_info"] == {"editable": True}
            return
    pytest.skip("vireid_jax is not installed: this is a clone's root alone")


def test_wheel_holds_the_package_its_builders_and_nothing_else(wheel):
    package = ROOT / "vireid_jax"
    files = [*package.rglob("*.py"), *package.rglob("*.tsv")]
    expected = {f"vireid_jax/{p.relative_to(package)}" for p in files}
    expected.add("vireid_jax/py.typed")
    templates = ("page.html.j2", "ranks.html.j2", "page.css")
    expected |= {f"vireid_jax/report/{name}" for name in templates}
    expected |= {
        f"vireid_jax/weights/{p.name}" for p in package.glob("weights/*.safetensors")
    }
    expected |= {
        f"vireid_jax/{p.relative_to(ROOT)}"
        for pattern in METADATA_OF_BUILDERS
        for p in (ROOT / "datasets").glob(f"*/{pattern}")
    }
    expected |= {
        f"vireid_jax/{p.relative_to(ROOT)}" for p in (ROOT / "configs").rglob("*.py")
    }
    found = {str(p.relative_to(wheel)) for p in wheel.rglob("*") if p.is_file()}
    assert {name for name in found if ".dist-info/" not in name} == expected
    assert "vireid_jax/datasets/walkers/CITATIONS.bib" in expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in found)


def test_wheel_works_in_a_foreign_folder(wheel, tmp_path):
    places = python("-c", TOUR, tmp_path, cwd=tmp_path, path=wheel).split()
    assert len(places) == 3
    assert all(Path(place).is_relative_to(wheel) for place in places)
    for command, word in {"synthetic": "--sheet", "train": "--workdir"}.items():
        help_text = python(
            "-m", "vireid_jax", command, "--help", cwd=tmp_path, path=wheel
        )
        assert word in help_text
    python("-c", RECIPES, cwd=tmp_path, path=wheel)


def test_a_clones_root_works_without_an_installation(clone, tmp_path):
    places = python("-c", TOUR, tmp_path, cwd=clone).split()
    assert len(places) == 3
    assert all(Path(place).is_relative_to(clone) for place in places)
    python("-c", "import vireid_jax as v; v.get_config('ablations/method')", cwd=clone)


def test_import_is_light():
    heavy = {"jax", "flax", "numpy", "tensorflow", "torch", "tensorflow_datasets"}
    code = "import sys, vireid_jax; dir(vireid_jax); print(*sys.modules)"
    assert not heavy & set(python("-c", code, cwd=ROOT).split())
    assert {*vireid_jax.__all__} <= {*dir(vireid_jax)}
    with pytest.raises(AttributeError, match="'vireid_jax' has no attribute 'laod'"):
        vireid_jax.laod  # noqa: B018


# Imports every module, and checks that the process is as before.
IMPORTS = """
import importlib, logging, pkgutil, signal, jax
state = lambda: (
    {**jax.config.values}, logging.root.level,  # orbax adds a handler
    signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM),
)
before = state()
import vireid_jax
for module in pkgutil.walk_packages(vireid_jax.__path__, "vireid_jax."):
    importlib.import_module(module.name)
assert state() == before
"""
PUBLIC = """
import inspect
for name in vireid_jax.__all__:
    public = getattr(vireid_jax, name)
    kinds = {"Embedder": "class", "Result": "class", "losses": "module"}
    if name != "__version__":
        assert getattr(inspect, "is" + kinds.get(name, "function"))(public), name
    assert public is getattr(vireid_jax, name)
assert vireid_jax.losses.METRIC_LOSSES
assert vireid_jax.get_config("demo").data.name == "walkers"
assert vireid_jax.get_protocols("walkers/thermal")
"""


def test_imports_change_nothing_global_and_hide_no_public_name():
    python("-c", IMPORTS + PUBLIC, cwd=ROOT)


def test_the_docs_score_two_folders_by_public_names(tmp_path, monkeypatch, capsys):
    """Run the lines of docs/embed.md with a network of random weights."""
    section = (ROOT / "docs/embed.md").read_text().partition("## Score two folders")[2]
    lines = section.partition("```python\n")[2].partition("```")[0]
    names = [f"{person}/{camera}.png" for person in range(4) for camera in (1, 2)]
    for modality in ("visible", "infrared"):
        fill(tmp_path / modality, names)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(embedder, "load", lambda _: embedder_of())
    exec(compile(lines, "docs/embed.md", "exec"), {})
    out = capsys.readouterr().out
    assert "infrared-to-visible" in out
    assert "Rank-1" in out


def test_nothing_installs_tensorflow_or_torch_by_default():
    """Follow the requirements of what is installed, extras as they are asked for."""
    seen, todo = set(), [Requirement(one) for one in PROJECT["dependencies"]]
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        for extra in {"", *one.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += [
                    needed
                    for needed in map(Requirement, metadata.requires(name) or [])
                    if not needed.marker or needed.marker.evaluate({"extra": extra})
                ]
    names = {name for name, _ in seen}
    assert {"jaxlib", "protobuf", "tensorflow-metadata"} < names  # it did follow them
    assert not names & {"tensorflow", "tensorflow-cpu", "tf-nightly", "keras", "torch"}


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_every_dependency_has_a_reason(requirement):
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    reasons = [line.partition("#")[2] for line in lines if f'"{requirement}"' in line]
    assert reasons
    assert all(len(reason.split()) >= 2 for reason in reasons)


@pytest.mark.parametrize("python_version", ["py311", "py312"])
def test_constraints_pin_all_that_developers_need(python_version):
    pins = {}
    for line in (ROOT / f"constraints/{python_version}.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==([\w.+]+)", line).groups()
            pins[canonicalize_name(name)] = version
    dev = PROJECT["optional-dependencies"]["dev"]
    for one in map(Requirement, [*PROJECT["dependencies"], *dev]):
        assert one.specifier.contains(pins[canonicalize_name(one.name)]), one
    assert not {"tensorflow", "torch", "vireid-jax"} & pins.keys()


def test_changelog_starts_with_this_version():
    versions = re.findall(r"\n## (\S+)", (ROOT / "CHANGELOG.md").read_text())
    assert versions[0] == vireid_jax.__version__


def test_signatures_are_checked_while_tests_run():
    with pytest.raises(jaxtyping.TypeCheckError):
        models.create(name=1)
    with pytest.raises(jaxtyping.TypeCheckError):
        protocols.cosine_rows(np.ones((2, 3)), np.ones(3))
