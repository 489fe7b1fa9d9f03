"""The check finds what would make a server fail in its configuration, before the server reads it."""

import shutil

import pytest
from tensorflow_serving.config import model_server_config_pb2

from export import configuration, configuration_check, contract, serving_config
from export.configuration import BatchingParameters, ModelConfig
from export.configuration_check import find_problems
from export.verify import CHECKSUMS_NAME, write_checksums


@pytest.fixture
def base_path(tmp_path):
    """Versions 1 and 2, as small as possible, with checksums."""
    base_path = tmp_path / "serving" / "squeezenet"
    for version in (1, 2):
        folder = base_path / str(version)
        (folder / contract.EXTRA_FOLDER).mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"a graph")
        write_checksums(folder)
    return base_path


def problems_of(tmp_path, model, batching=None, **options):
    folder = tmp_path / "config"
    configuration.write(folder, model, batching or BatchingParameters(), **options)
    return find_problems(folder, {})


def test_what_the_command_writes_is_fine(tmp_path, base_path):
    for model in (
        ModelConfig(base_path=str(base_path)),
        ModelConfig(base_path=str(base_path), versions=(1,)),
        ModelConfig(base_path=str(base_path), versions=(1, 2), version_labels={"stable": 1}),
    ):
        moving_label = ("canary", 2) if model.versions else None
        assert problems_of(tmp_path, model, moving_label=moving_label) == []


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"versions": (1, 3)}, ["version 3 is not there"]),
        ({"versions": (3,), "version_labels": {"stable": 3}}, ["version 3 is not there", "'stable' is on version 3"]),
    ],
)
def test_versions_and_labels_that_are_not_there(tmp_path, base_path, model, expected):
    problems = problems_of(tmp_path, ModelConfig(base_path=str(base_path), **model))
    assert len(problems) == len(expected)
    for problem, part in zip(problems, expected, strict=True):
        assert part in problem and "models.config" in problem


def test_the_file_for_a_label_that_moves_is_checked_too(tmp_path, base_path):
    model = ModelConfig(base_path=str(base_path), versions=(1,), version_labels={"stable": 1})
    problems = problems_of(tmp_path, model, moving_label=("stable", 5))
    assert [configuration.NEXT_MODELS_NAME in problem for problem in problems] == [False, True, True]


def test_a_label_on_a_version_that_is_not_served(tmp_path, base_path):
    text = configuration.models_config([ModelConfig(base_path=str(base_path), versions=(1,))])
    text = text.replace("\n  }\n", '\n    version_labels { key: "canary" value: 2 }\n  }\n')
    (tmp_path / configuration.MODELS_NAME).write_text(text)
    (problem,) = find_problems(tmp_path, {})
    assert "'canary' is on version 2" in problem


def damage(folder):
    (folder / "saved_model.pb").write_bytes(b"another graph")


def remove_a_file(folder):
    (folder / "variables").write_bytes(b"")
    write_checksums(folder)
    (folder / "variables").unlink()


def empty_the_checksums(folder):
    (folder / contract.EXTRA_FOLDER / CHECKSUMS_NAME).write_bytes(b"")


def remove_the_graph(folder):
    (folder / "saved_model.pb").unlink()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (damage, "not as they were exported"),
        (remove_a_file, "missing"),
        (remove_the_graph, "no saved_model.pb"),
        (empty_the_checksums, "files are not in SHA256SUMS, first saved_model.pb"),
    ],
)
def test_a_version_whose_files_do_not_fit(tmp_path, base_path, change, expected):
    change(base_path / "2")
    (problem,) = problems_of(tmp_path, ModelConfig(base_path=str(base_path)))
    assert expected in problem and str(base_path / "2") in problem
    assert problems_of(tmp_path, ModelConfig(base_path=str(base_path), versions=(1,))) == [], "2 is not served"


def test_versions_of_another_exporter_have_no_checksums(tmp_path, base_path):
    (base_path / "2" / contract.EXTRA_FOLDER / CHECKSUMS_NAME).unlink()
    assert problems_of(tmp_path, ModelConfig(base_path=str(base_path))) == []


def test_no_versions(tmp_path, base_path):
    shutil.rmtree(base_path)
    (problem,) = problems_of(tmp_path, ModelConfig(base_path=str(base_path)))
    assert "no version is in" in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batch_size { value: 64 } allowed_batch_sizes: [1, 32]", "must end at max_batch_size, 64"),
        ("allowed_batch_sizes: [1, 32]", "must end at max_batch_size, 1000"),
        ("max_batch_size { value: 32 } allowed_batch_sizes: [8, 4, 32]", "ascending"),
        ("max_batch_size { value: 32 } allowed_batch_sizes: [0, 32]", "positive"),
        ("max_batch_size { value: 16 }", "clients send up to 32"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be at least 1"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be at least 0"),
        ("max_batch_sise { value: 32 }", "cannot be read as a BatchingParameters"),
        ("max_batch_size: 32", "cannot be read as a BatchingParameters"),
    ],
)
def test_batching(tmp_path, base_path, text, expected):
    configuration.write(tmp_path, ModelConfig(base_path=str(base_path)), BatchingParameters())
    (tmp_path / configuration.BATCHING_NAME).write_text(text)
    (problem,) = find_problems(tmp_path, {})
    assert expected in problem and configuration.BATCHING_NAME in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model_config_list {}", "no model"),
        ("model_config_list { config { base_path: 'BASE' model_platform: 'tensorflow' } }", "has no name"),
        ("model_config_list { config { name: 'a' base_path: 'BASE' } }", "model_platform"),
        ("model_config_list { config { name: 'a' base_path: 'BASE' model_type: OTHER } }", "model_platform must be"),
        (
            "model_config_list { config { name: 'a' base_path: 'BASE' model_platform: 'tensorflow' "
            "model_type: TENSORFLOW } }",
            "a: give model_platform alone",
        ),
        (
            "model_config_list { config { name: 'a' base_path: 'gs://b/m' model_platform: 'tensorflow' } }",
            "gs://b/m cannot be checked from here. If this machine has a copy, add --model_name=a --base_path=FOLDER",
        ),
        (
            "model_config_list { " + "config { name: 'a' base_path: 'BASE' model_platform: 'tensorflow' } " * 2 + "}",
            "more than once",
        ),
        ("model_config_list { config { name: 'a' version: 1 } }", "cannot be read as a ModelServerConfig"),
        ("\xff", "cannot be read as a ModelServerConfig"),
        ("model_config_list {\xc2\xa0config { name: 'a' } }", "model_config_list {<U+00A0>config"),
        (
            "model_config_list { config { name: 'a' base_path: 'BASE' model_platform: 'tensorflow' "
            "model_version_policy { specific {} } } }",
            "lists no version",
        ),
    ],
)
def test_models(tmp_path, base_path, text, expected):
    (tmp_path / configuration.MODELS_NAME).write_text(text.replace("BASE", str(base_path)), "latin-1")
    (problem,) = find_problems(tmp_path, {})
    assert expected in problem


def test_other_files(tmp_path, base_path):
    (problem,) = find_problems(tmp_path / "nothing", {})
    assert configuration.MODELS_NAME in problem
    configuration.write(tmp_path, ModelConfig(base_path=str(base_path)), BatchingParameters())
    (tmp_path / configuration.MONITORING_NAME).write_text('prometheus_config { enable: true path: "metrics" }')
    (problem,) = find_problems(tmp_path, {})
    assert "begin with '/'" in problem


def test_the_old_name_of_the_platform(tmp_path, base_path):
    text = configuration.models_config([ModelConfig(base_path=str(base_path))])
    (tmp_path / configuration.MODELS_NAME).write_text(
        text.replace('model_platform: "tensorflow"', "model_type: TENSORFLOW")
    )
    assert find_problems(tmp_path, {}) == []


def test_every_policy(tmp_path, base_path):
    text = configuration.models_config([ModelConfig(base_path=str(base_path))])
    damage(base_path / "1")
    for policy, count in (("latest { num_versions: 1 }", 0), ("latest { num_versions: 2 }", 1), ("all {}", 1)):
        changed = text.replace("\n  }\n", f"\n    model_version_policy {{ {policy} }}\n  }}\n")
        (tmp_path / configuration.MODELS_NAME).write_text(changed)
        assert len(find_problems(tmp_path, {})) == count


def test_the_command(tmp_path, base_path, run_command, capsys):
    config = tmp_path / "config"
    assert run_command(serving_config, f"--output_dir={config}") == 0
    assert run_command(serving_config, f"--check={config}") == 1
    assert "no version is in /models/squeezenet" in capsys.readouterr().out
    assert run_command(serving_config, f"--check={config}", f"--base_path={base_path}") == 0
    assert capsys.readouterr().out == f"{config}: nothing that would fail\n"
    assert run_command(serving_config, f"--check={config}", f"--base_path={base_path}", "--model_name=other") == 1
    a_file = f"--check={config / configuration.MODELS_NAME}"
    both = [f"--check={config}", f"--output_dir={config}"]
    for flags in ([], both, [f"--check={config}", "--model_versions=1"], [a_file]):
        with pytest.raises(ValueError, match="--check"):
            run_command(serving_config, *flags)


def test_the_messages_are_the_servers():
    ours = configuration_check._CLASSES["tensorflow.serving.ModelConfig"].DESCRIPTOR
    public = model_server_config_pb2.ModelConfig.DESCRIPTOR
    assert {field.name: (field.number, field.type) for field in ours.fields} == {
        field.name: (field.number, field.type) for field in public.fields
    }
    policy, public_policy = (form.fields_by_name["model_version_policy"].message_type for form in (ours, public))
    assert {field.name: field.number for field in policy.fields} == {
        field.name: field.number for field in public_policy.fields
    }
