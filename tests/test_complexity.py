"""Parameters and multiply-accumulates, as published and as torch counts them."""

import flax.linen as nn
import pytest
from osnet_reference import CLASSES, COMPLEXITY, count, read, shapes_of

from vireid_jax import models
from vireid_jax.models.complexity import complexity
from vireid_jax.models.osnet import CHANNELS, STAGES
from vireid_jax.models.self_distillation import STUDENTS
from vireid_jax.models.two_stream import TwoStreamOSNet


@pytest.mark.parametrize("name", models.list_models())
def test_stages_have_the_published_parameters_and_macs(name):
    reference = COMPLEXITY[name.replace("ain_", "")]  # AIN swaps norms one for one
    rows = complexity(models.create_single(name, num_classes=CLASSES), (256, 128))
    assert {row.stage: row.params for row in rows} == {
        stage: about["params"]
        for stage, about in reference["stages"].items()
        if stage != "classifier"
    }
    assert {row.stage: row.macs for row in rows} == reference["flops_stage_256x128"]
    assert sum(row.macs for row in rows) == reference["flops_256x128"]
    params = sum(row.params for row in rows)
    assert params == reference["params_without_classifier"]
    *_, conv4, conv5, fc = rows
    width = reference["channels"][-1]
    assert conv4.output == conv5.output == (16, 8, width)
    assert fc.output == (512,)


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_ain_x0_25", "osnet_ibn_x1_0"])
def test_the_classifier_has_a_bias(name):
    params = shapes_of(models.create_single(name, num_classes=CLASSES))["params"]
    reference = COMPLEXITY[name.replace("ain_", "")]
    assert count(params) == reference["params_total_with_classifier"]
    stated = read("osnet_variants.json").get(name, {})
    assert count(params) == stated.get("params_with_395_classifier", count(params))


def test_macs_of_another_size():
    rows = complexity(models.create_single("osnet_x0_25"), (384, 144))
    assert sum(row.macs for row in rows) == COMPLEXITY["osnet_x0_25"]["flops_384x144"]


def test_a_copy_per_modality_costs_parameters_and_no_macs():
    """Count a network with parts and students, k = 1, whose cost at test is known."""
    model = TwoStreamOSNet(
        CHANNELS["osnet_x1_0"], 7, granularities=(2, 3, 6), students=STUDENTS
    )
    rows = {row.stage: row for row in complexity(model, (288, 144))}
    assert list(rows) == [*STAGES, "head", "parts"]
    assert sum(row.params for row in rows.values()) == 2_411_108
    assert (
        rows["conv1"].params
        == 2 * COMPLEXITY["osnet_x1_0"]["stages"]["conv1"]["params"]
    )
    fc = COMPLEXITY["osnet_x1_0"]["flops_stage_256x128"]["fc"]
    stages = sum(rows[stage].macs for stage in STAGES)
    assert stages == COMPLEXITY["osnet_x1_0"]["flops_288x144"] - fc
    # A part: two reductions of 512 to 128 features, and a relation of twice 128.
    assert rows["parts"].macs == 11 * (2 * 512 * 128 + 256 * 128)
    assert rows["parts"].output == (11, 128)
    assert (rows["head"].macs, rows["head"].output) == (0, (512,))


def test_a_matrix_of_unknown_use_raises():
    class Mixed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x.mean((2, 3)) @ self.param("mixer", nn.initializers.ones, (3, 4))

    class Network(nn.Module):
        num_classes: int | None = None

        @nn.compact
        def __call__(self, images, views):
            return Mixed(name="mixed")(images)

    with pytest.raises(TypeError, match="mixed/mixer"):
        complexity(Network(), (32, 32))
