"""TensorFlow Serving's own messages can parse the files, and what a server would refuse is never written."""

import os

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from export import configuration, contract, serving_config
from export.configuration import BatchingParameters, ModelConfig

STRING, BOOL, INT64, MESSAGE = 9, 8, 3, 11


def message(name, fields):
    """A message type made from its fields (name, number, type, repeated).

    tensorflow-serving-api lacks two of the three types; the fields here are those of TensorFlow Serving's
    session_bundle_config.proto and monitoring_config.proto.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="test", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    form = file.message_type.add(name=name)
    for field, number, kind, repeated in fields:
        added = form.field.add(name=field, number=number, label=3 if repeated else 1)
        if isinstance(kind, str):
            added.type, added.type_name = MESSAGE, kind
        else:
            added.type = kind
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{name}"))


WRAPPED = ".google.protobuf.Int64Value"
Batching = message(
    "BatchingParameters",
    [
        ("max_batch_size", 1, WRAPPED, False),
        ("batch_timeout_micros", 2, WRAPPED, False),
        ("max_enqueued_batches", 3, WRAPPED, False),
        ("num_batch_threads", 4, WRAPPED, False),
        ("allowed_batch_sizes", 6, INT64, True),
    ],
)
Prometheus = message("PrometheusConfig", [("enable", 1, BOOL, False), ("path", 2, STRING, False)])


def parse_models(text):
    (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    return model


def test_without_versions_the_newest_is_served():
    model = parse_models(configuration.models_config([ModelConfig()]))
    assert (model.name, model.base_path, model.model_platform) == ("squeezenet", "/models/squeezenet", "tensorflow")
    assert not model.HasField("model_version_policy")
    assert not model.version_labels


def test_versions_and_their_labels():
    text = configuration.models_config([ModelConfig("a", "s3://bucket/a", (1, 2**63 - 1), {"stable": 1, "canary": 1})])
    model = parse_models(text)
    assert model.base_path == "s3://bucket/a"
    assert list(model.model_version_policy.specific.versions) == [1, 2**63 - 1]
    assert dict(model.version_labels) == {"stable": 1, "canary": 1}
    assert "--allow_version_labels_for_unavailable_models" in text


def test_a_label_moves_in_two_steps():
    loading, moved = ModelConfig(versions=(1,), version_labels={"stable": 1}).moving("stable", 2)
    assert (loading.versions, loading.version_labels) == ((1, 2), {"stable": 1})
    assert (moved.versions, moved.version_labels) == ((1, 2), {"stable": 2})
    with pytest.raises(ValueError, match="give --model_versions, those that are loaded now"):
        ModelConfig().moving("stable", 2)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": 'a"b'}, "letters, digits"),
        ({"name": ""}, "letters, digits"),
        ({"base_path": "models/a"}, "absolute path"),
        ({"base_path": '/models/"'}, "absolute path"),
        ({"base_path": "/models/a\n}"}, "absolute path"),
        ({"versions": (0,)}, "positive"),
        ({"versions": (1, 1)}, "different"),
        ({"versions": (2**63,)}, "positive"),
        ({"version_labels": {"stable": 1}}, "loaded"),
        ({"versions": (1,), "version_labels": {"stable": 2}}, "loaded"),
        ({"versions": (1,), "version_labels": {"a b": 1}}, "letters, digits"),
    ],
)
def test_what_a_server_would_refuse_is_refused(fields, error):
    with pytest.raises(ValueError, match=error):
        ModelConfig(**fields)


def test_batches_have_the_sizes_of_the_contract():
    parsed = text_format.Parse(configuration.batching_config(BatchingParameters()), Batching())
    assert tuple(parsed.allowed_batch_sizes) == contract.ALLOWED_BATCH_SIZES
    assert parsed.max_batch_size.value == contract.MAX_BATCH_SIZE == contract.ALLOWED_BATCH_SIZES[-1]
    assert parsed.batch_timeout_micros.value == 0
    assert not parsed.HasField("num_batch_threads")
    parsed = text_format.Parse(configuration.batching_config(BatchingParameters((1, 3), 500, 7, 2)), Batching())
    assert (parsed.max_batch_size.value, parsed.batch_timeout_micros.value) == (3, 500)
    assert (parsed.max_enqueued_batches.value, parsed.num_batch_threads.value) == (7, 2)


@pytest.mark.parametrize("wrong", [((),), ((0, 1),), ((2, 1),), ((1, 1),), ((1,), -1), ((1,), 0, 0), ((1,), 0, 1, 0)])
def test_batching_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        BatchingParameters(*wrong)


def test_monitoring():
    text = configuration.monitoring_config("/metrics").splitlines()[1]
    parsed = text_format.Parse(text.removeprefix("prometheus_config {").removesuffix("}"), Prometheus())
    assert (parsed.enable, parsed.path) == (True, "/metrics")
    with pytest.raises(ValueError, match="begin with"):
        configuration.monitoring_config('/a"b')


def test_the_command_writes_the_files(tmp_path, run_command):
    flags = ["--model_versions=3,4", "--version_labels=stable=3", "--num_batch_threads=2", f"--output_dir={tmp_path}"]
    run_command(serving_config, *flags)
    assert sorted(os.listdir(tmp_path)) == ["batching.config", "models.config", "monitoring.config"]
    assert dict(parse_models((tmp_path / "models.config").read_text()).version_labels) == {"stable": 3}
    run_command(serving_config, *flags, "--move_label=stable=5", "--base_path=/données/squeezenet")
    assert len(os.listdir(tmp_path)) == 4
    before, after = (parse_models((tmp_path / f"models{next}.config").read_text()) for next in ("", ".next"))
    assert before.model_version_policy == after.model_version_policy
    assert list(after.model_version_policy.specific.versions) == [3, 4, 5]
    assert (dict(before.version_labels), dict(after.version_labels)) == ({"stable": 3}, {"stable": 5})


@pytest.mark.parametrize("wrong", ["--version_labels=stable", "--model_versions=latest", "--move_label=stable"])
def test_the_command_refuses_before_it_writes(tmp_path, run_command, wrong):
    with pytest.raises(ValueError, match=r"expected (a number|LABEL=VERSION, such as stable=1), got"):
        run_command(serving_config, wrong, f"--output_dir={tmp_path / 'new'}")
    assert not (tmp_path / "new").exists()
