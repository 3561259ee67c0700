"""Starting from another run's network: what is taken, what is refused, what wins."""

import jax
import numpy as np
import pytest
import small_run

import vireid_jax
from vireid_jax.models.build import init_variables
from vireid_jax.train import train_run
from vireid_jax.training.warm_start import insert_run

# Slow: three runs of a small network, each compiled.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("compiled_once", "small_network"),
]


@pytest.fixture(scope="module")
def first(tmp_path_factory, compiled_once, small_network):
    """A finished run, and where its data lie."""
    folder = tmp_path_factory.mktemp("first")
    train_run(small_run.config_of(folder / "data"), folder / "run")
    return folder


def variables_of(num_classes, features=8):
    model = small_run.Small(num_classes, features)
    return jax.jit(lambda key: init_variables(model, key))(jax.random.key(5))


def test_the_network_is_taken(first):
    found = insert_run(variables_of(6), str(first / "run"))
    expected = vireid_jax.load(first / "run").variables
    jax.tree.map(np.testing.assert_array_equal, found, dict(expected))


def test_classifiers_of_other_identities_start_again(first):
    mine = variables_of(9)
    found = insert_run(mine, str(first / "run"))["params"]
    np.testing.assert_array_equal(
        found["head"]["classifier"]["kernel"],
        mine["params"]["head"]["classifier"]["kernel"],
    )
    expected = vireid_jax.load(first / "run").variables["params"]["conv1"]
    jax.tree.map(np.testing.assert_array_equal, found["conv1"], expected)


def test_another_network_is_refused_by_name(first):
    message = r"init_from=.* batch_stats/conv1/bn/mean is \(4,\) here and \(8,\) there"
    with pytest.raises(ValueError, match=message):
        insert_run(variables_of(6, features=4), str(first / "run"))
    with pytest.raises(ValueError, match="not a folder"):
        insert_run(variables_of(6), str(first / "nowhere"))


def test_a_checkpoint_wins_over_init_from_and_that_over_pretrained(
    first, tmp_path, capsys
):
    config = small_run.config_of(first / "data")
    config.init_from = str(first / "run")
    config.model.pretrained = "there is no such file"  # so it is not read
    train_run(config, tmp_path / "second")
    said = " ".join(capsys.readouterr().out.split())
    assert f"No checkpoint yet: starting from the run {first / 'run'}." in said
    config.init_from = "no run either"
    # As if it had been so from the start: else another config is refused.
    path = tmp_path / "second" / "config.json"
    path.write_text(config.to_json_best_effort())
    train_run(config, tmp_path / "second")
    assert "Resuming from step 6 of 6" in " ".join(capsys.readouterr().out.split())
