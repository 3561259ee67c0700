"""An embedder's images, of every kind and size, and its ranking."""

import functools
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from small_run import Small

import vireid_jax
from vireid_jax.config import default_config
from vireid_jax.data.any_image import read_image
from vireid_jax.embed.embedder import Embedder, nearest
from vireid_jax.models.build import init_variables
from vireid_jax.training.run_info import RunInfo

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (11, 32, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def embedder():
    model = Small(3)
    variables = init_variables(model, jax.random.key(0))
    return Embedder(model, variables, size=(32, 16), flip=False, batch_size=4)


class TestEmbed:
    def test_files_and_arrays_in_any_mixture(self, embedder, tmp_path):
        Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
        Image.fromarray(IMAGES[1]).resize((40, 90)).save(tmp_path / "b.bmp")
        heat = RNG.integers(0, 65_536, (50, 20), np.uint16)
        sources = [tmp_path / "a.png", str(tmp_path / "b.bmp"), heat, IMAGES[2]] * 2
        found = embedder.embed(sources, "infrared")
        pixels = np.stack([read_image(source, (32, 16)) for source in sources])
        np.testing.assert_array_equal(found, embedder.embed(pixels, "infrared"))
        assert (found.shape, found.dtype) == ((8, embedder.dim), np.float32)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)

    def test_one_path_is_one_image(self, embedder, tmp_path):
        Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
        one = embedder.embed(tmp_path / "a.png", "visible")
        np.testing.assert_array_equal(one, embedder.embed(IMAGES[:1], "visible"))
        image = Image.open(tmp_path / "a.png")
        np.testing.assert_array_equal(one, embedder.embed(image, "visible"))
        assert embedder.embed([], "visible").shape == (0, embedder.dim)

    def test_any_number_and_size_of_images_compiles_once(self, embedder):
        step = embedder._steps["visible"]
        embedder.embed(IMAGES[:1], "visible")
        before = step._cache_size()
        embedder.embed(IMAGES, "visible")
        embedder.embed([RNG.integers(0, 256, (9, 7), np.uint8)], "visible")
        assert step._cache_size() == before == 1

    def test_what_cannot_be_read_is_named(self, embedder, tmp_path):
        (tmp_path / "b.jpg").write_text("no image")
        sources = [IMAGES[0], tmp_path / "b.jpg", tmp_path / "c.png", *IMAGES[1:]]
        with pytest.raises(ValueError, match=r"b\.jpg cannot be decoded"):
            embedder.embed(sources, "visible")
        batches = list(embedder.embed_stream(sources, "visible"))
        indices = [index for batch in batches for index in batch.indices]
        assert indices == [0, *range(3, 13)]
        found = np.concatenate([batch.embeddings for batch in batches])
        np.testing.assert_allclose(found, embedder.embed(IMAGES, "visible"), atol=1e-5)
        errors = batches[0].errors
        assert list(errors) == [1, 2]
        assert errors[2] == f"{tmp_path / 'c.png'}: No such file or directory"

    def test_a_modality_that_was_not_in_training_is_refused(self, embedder):
        options = {"size": (32, 16), "batch_size": 4, "modalities": ["visible"]}
        alone = Embedder(embedder.model, embedder.variables, **options)
        for modality in ("infrared", "thermal"):
            with pytest.raises(ValueError, match=rf"'{modality}'; .*: \['visible'\]"):
                alone.embed(IMAGES, modality)
        with pytest.raises(ValueError, match=r"images are \(32, 16, 3\)"):
            alone.embed(IMAGES[0], "visible")


def test_the_fingerprint_is_of_weights_and_options_not_of_the_class(embedder):
    class Larger(Small):
        unused: int = 0

    class Half(Small):
        dtype: str = "bfloat16"

    def fingerprint(model=embedder.model, variables=embedder.variables, **changes):
        options = {"size": (32, 16), "flip": False, "batch_size": 4} | changes
        return Embedder(model, variables, **options).fingerprint

    assert fingerprint(Larger(3), batch_size=8) == embedder.fingerprint
    others = [
        fingerprint(Half(3)),
        fingerprint(variables=jax.tree.map(lambda x: x + 1, embedder.variables)),
        fingerprint(variables={"renamed": embedder.variables}),
        *(
            fingerprint(**{name: x})
            for name, x in {"size": (64, 16), "flip": True, "feature": "all"}.items()
        ),
    ]
    assert len({embedder.fingerprint, *others}) == 1 + len(others)


class TestRank:
    def test_against_a_stable_sort(self, embedder):
        gallery = RNG.normal(size=(300, embedder.dim)).astype(np.float32)
        gallery[200:] = gallery[100:200]  # of equal ones the earlier is first
        query = RNG.normal(size=(5, embedder.dim)).astype(np.float32)
        indices, scores = embedder.rank(query, gallery, top=7)
        products = query @ gallery.T
        expected = np.argsort(-products, axis=1, kind="stable")[:, :7]
        np.testing.assert_array_equal(indices, expected)
        expected = np.take_along_axis(products, expected, 1)
        np.testing.assert_allclose(scores, expected, rtol=1e-5)

    def test_a_small_gallery_is_returned_completely(self):
        query, gallery = np.eye(3, 4, dtype=np.float32), np.eye(4, dtype=np.float32)
        assert nearest(query, gallery, 10).indices.shape == (3, 4)
        assert nearest(query[:0], gallery, 2).indices.shape == (0, 2)

    @pytest.mark.mistakes("images")
    def test_mistakes_are_refused(self, embedder, refuses):
        ours = np.ones((2, embedder.dim), np.float32)
        other = np.ones((2, 5), np.float32)
        refuses(
            "embeddings of another dimension than the network's",
            lambda: embedder.rank(ours, other),
            "gallery has the shape (2, 5); give [rows, 8]",
        )
        with pytest.raises(ValueError, match=r"query has the shape .*; give \[rows, "):
            embedder.rank(ours[0], ours)
        with pytest.raises(ValueError, match="top is 0"):
            embedder.rank(ours, ours, top=0)
        with pytest.raises(ValueError, match="of 0 rows"):
            embedder.rank(ours, ours[:0])


@pytest.fixture(scope="module")
def about():
    config = default_config()
    config.data.size, config.eval.batch_size = (32, 16), 4
    config.model.name = "osnet_x0_25"
    return {"config": config.to_dict(), "num_classes": 3, "step": 1}


@pytest.fixture(scope="module")
def tensors(about):
    variables = init_variables(Small(3), jax.random.key(1))
    place = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {place(where): np.asarray(leaf) for where, leaf in leaves}


@pytest.mark.usefixtures("small_network")
class TestFile:
    def test_all_of_a_network_is_in_it(self, about, tensors, tmp_path):
        path = tmp_path / "network.safetensors"
        save_file(tensors, path, metadata={"about": json.dumps(about)})
        found = vireid_jax.load(path)
        expected = RunInfo.from_json(json.loads(json.dumps(about)))
        assert (found.size, found.about) == ((32, 16), expected)
        kernel = found.variables["params"]["conv1"]["conv"]["kernel"]
        expected = tensors["params/conv1/conv/kernel"]
        np.testing.assert_array_equal(kernel, expected)

    @pytest.mark.mistakes("checkpoints")
    def test_another_kind_of_file_is_refused(self, about, tensors, refuses, tmp_path):
        path = tmp_path / "network.safetensors"
        load = lambda: vireid_jax.load(path)
        refuses("a .safetensors file that is not there", load, "there is no file")
        save_file(tensors, path)
        reason = "has no description of its network"
        refuses("a .safetensors file of weights alone", load, reason)
        some = {place: x for place, x in tensors.items() if "kernel" not in place}
        save_file(some, path, metadata={"about": json.dumps(about)})
        images = np.zeros((1, 32, 16, 3), np.uint8)
        refuses(
            "a .safetensors file of another network",
            lambda: load().embed(images, "visible"),
            "are not those of this network",
            "kernel",
        )
        path.write_text("no tensors")
        with pytest.raises(ValueError, match="is not a safetensors file"):
            vireid_jax.load(path)


KEEP = """
import jax
from vireid_jax.run.runtime import keep_compiled
if {mine}:
    jax.config.update("jax_compilation_cache_dir", "/mine")
keep_compiled()
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize(
    ("mine", "variables", "expected"),
    [
        (False, {}, "{home}/vireid_jax"),
        (True, {}, "/mine"),
        (False, {"JAX_COMPILATION_CACHE_DIR": "/theirs"}, "/theirs"),
    ],
)
def test_a_compile_cache_is_chosen_where_there_is_none(
    mine, variables, expected, tmp_path
):
    environment = {k: v for k, v in os.environ.items() if "COMPILATION" not in k}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), **variables}
    command = [sys.executable, "-c", KEEP.format(mine=mine)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected.format(home=tmp_path)
