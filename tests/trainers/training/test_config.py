import dataclasses
import importlib
import json

import numpy as np
import pytest

from sqz_keras import Metaparameters, ModelSpec
from trainers.config_flags import FIELDS
from trainers.configs import list_configs, load_config
from trainers.training.config import TrainConfig

CONFIG = TrainConfig(model=ModelSpec(), dataset="imagenet2012")


def test_defaults_are_the_authors_solver():
    solver = (CONFIG.base_learning_rate, CONFIG.power, CONFIG.momentum, CONFIG.weight_decay)
    assert solver == (0.04, 1.0, 0.9, 2e-4)
    assert (CONFIG.max_steps, CONFIG.global_batch_size) == (170_000, 512)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_steps", 0),
        ("max_steps", 1.5),
        ("warmup_steps", -1),
        ("warmup_steps", 170_001),
        ("base_learning_rate", -0.1),
        ("base_learning_rate", float("nan")),
        ("base_learning_rate", "0.1"),
        ("power", float("inf")),
        ("momentum", 1.0),
        ("dropout_rate", 1.0),
        ("bypass_scale", 0),
        ("weight_decay", -1e-4),
        ("global_batch_size", True),
        ("momentum", True),
        ("jit_compile", 1),
        ("shuffle_buffer_size", 0),
        ("eval_every_steps", 0),
        ("seed", -1),
        ("label_smoothing", 1.0),
        ("ema_decay", 1.0),
        ("solver", "adam"),
        ("augmentation", "colour"),
        ("strategy", "all"),
        ("data_service", "localhost:5050"),
        ("data_service", "grpc://localhost"),
        ("precision", "float16"),
        ("accumulation_steps", 0),
        ("frozen_steps", 170_001),
        ("sparse_steps", 5),
        ("densities", "0.5"),
        ("densities", "fire99=0.5"),
        ("max_bad_pictures", -1),
        ("head_images", -1),
        ("head_images", 9),
        ("image_dir", "also"),
        ("seed", 1 << 32),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(CONFIG, **{field: value})


def test_numpy_numbers_become_plain_ones():
    config = dataclasses.replace(CONFIG, max_steps=np.int64(7), dropout_rate=np.float32(0.25))
    assert json.loads(json.dumps(config.to_json()))["max_steps"] == 7
    assert config == dataclasses.replace(CONFIG, max_steps=7, dropout_rate=0.25)


def test_too_small_an_input_is_refused():
    assert Metaparameters().min_input_size() == 21
    with pytest.raises(ValueError, match="at least 21"):
        dataclasses.replace(CONFIG, model=ModelSpec(input_size=20))


def test_every_recipe_loads_and_has_a_json_form():
    assert "digits" in list_configs()
    for name in list_configs():
        config = load_config(name)
        assert json.loads(json.dumps(config.to_json()))["dataset"] == config.dataset


@pytest.mark.parametrize("name", ["nothing", "__init__", "digits.get_config", "../configs/digits", ""])
def test_an_unknown_recipe_is_refused_with_the_names(name):
    with pytest.raises(ValueError, match="digits"):
        load_config(name)


def test_combinations_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="jit_compile and deterministic exclude each other"):
        dataclasses.replace(CONFIG, jit_compile=True, deterministic=True)
    with pytest.raises(ValueError, match="class_weights=balanced and mixup_alpha exclude each other"):
        dataclasses.replace(CONFIG, class_weights="balanced", mixup_alpha=0.2)
    with pytest.raises(ValueError, match="data_service and deterministic exclude each other"):
        dataclasses.replace(CONFIG, data_service="grpc://localhost:5050", deterministic=True)
    config = dataclasses.replace(CONFIG, accumulation_steps=16, jit_compile=True)
    config.check_replicas(1)
    with pytest.raises(ValueError, match="must be a multiple of 48: 3 replicas"):
        config.check_replicas(3)
    with pytest.raises(ValueError, match="one device only"):
        config.check_replicas(2)


@pytest.mark.parametrize("name", list_configs())
def test_every_recipe_says_its_command_and_can_be_made(name):
    module = importlib.import_module(f"trainers.configs.{name}")
    assert f"sqz-train --config={name} --workdir=DIR" in module.__doc__
    assert isinstance(load_config(name), TrainConfig)


def test_the_release_differs_from_the_published_solver_as_the_paper_notes():
    published, release = load_config("squeezenet_v1_0"), load_config("squeezenet_v1_0_release")
    assert (release.base_learning_rate, release.power) == (0.08, 0.5)
    assert release.max_steps * release.global_batch_size == published.max_steps * published.global_batch_size


def test_every_field_but_the_model_is_a_flag_with_a_text():
    assert FIELDS.keys() == {field.name for field in dataclasses.fields(TrainConfig)} - {"model"}
    assert all(field.metadata["help"] for field in FIELDS.values())
