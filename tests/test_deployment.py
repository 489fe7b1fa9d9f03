"""The files in docs/ that start TensorFlow Serving: they fit their schemas, the project, and each other."""

import http.server
import os
import pathlib
import subprocess
import threading

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from export import configuration
from export.server import model_server

DOCS = pathlib.Path(__file__).parents[1] / "docs"
# From TensorFlow Serving's main.cc: a flag that the server does not know ends it.
KNOWN_FLAGS = {
    *("allow_version_labels_for_unavailable_models", "batching_parameters_file", "enable_batching"),
    *("enable_grpc_healthcheck_service", "grpc_channel_arguments", "grpc_max_threads", "max_num_load_retries"),
    *("model_config_file", "model_config_file_poll_wait_seconds", "monitoring_config_file", "ssl_config_file"),
    *("tensorflow_inter_op_parallelism", "tensorflow_intra_op_parallelism"),
}


def documents(name):
    yaml = pytest.importorskip("yaml", reason="needs the extra `test`")
    return list(yaml.safe_load_all((DOCS / name).read_text("utf-8")))


@pytest.fixture(scope="module")
def manifest():
    """The objects of kubernetes-serve.yaml by kind."""
    return {document["kind"]: document for document in documents("kubernetes-serve.yaml")}


@pytest.fixture(scope="module")
def container(manifest):
    (container,) = manifest["Deployment"]["spec"]["template"]["spec"]["containers"]
    return container


@pytest.fixture(scope="module")
def composed():
    (document,) = documents("compose.yaml")
    (service,) = document["services"].values()
    return service


def flags_of(arguments):
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments)


@pytest.mark.parametrize("version", ["1.27", "1.37"])  # the first with stable gRPC probes, and the newest available
@pytest.mark.parametrize("name", sorted(path.name for path in DOCS.glob("kubernetes-*.yaml")))
def test_manifests_fit_the_schema(name, version):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the extra `test`")
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_objects_of_the_manifest_find_each_other(manifest, container):
    deployment, service = manifest["Deployment"]["spec"], manifest["Service"]["spec"]
    pod = deployment["template"]
    assert deployment["selector"]["matchLabels"] == service["selector"] == pod["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= set(ports)
    probes = [container[probe]["grpc"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert set(probes) == {ports["grpc"]}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert volumes["config"]["configMap"]["name"] == manifest["ConfigMap"]["metadata"]["name"]
    annotations = pod["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == configuration.METRICS_PATH
    assert annotations["prometheus.io/port"] == str(ports["http"])


def test_the_config_map_is_what_the_command_writes(manifest):
    assert manifest["ConfigMap"]["data"] == {
        configuration.MODELS_NAME: configuration.models_config([configuration.ModelConfig()]),
        configuration.MONITORING_NAME: configuration.monitoring_config(),
    }
    text_format.Parse(
        manifest["ConfigMap"]["data"][configuration.MODELS_NAME], model_server_config_pb2.ModelServerConfig()
    )


def test_both_start_the_server_as_sqz_serve_does(container, composed):
    kubernetes, compose = flags_of(container["args"]), flags_of(composed["command"])
    assert set(kubernetes) <= KNOWN_FLAGS
    assert kubernetes.items() - compose.items() == {("grpc_channel_arguments", "grpc.max_connection_age_ms=60000")}
    assert compose.items() <= kubernetes.items()
    ours = flags_of(model_server.command("", "/models", "squeezenet", 8500)[1:])
    assert model_server.FLAGS.items() <= ours.items()
    assert model_server.FLAGS.items() <= compose.items()
    assert container["image"] == composed["image"]
    cores = container["resources"]["limits"]["cpu"]
    assert cores == str(composed["cpus"]) == compose["tensorflow_inter_op_parallelism"]
    assert ours["tensorflow_inter_op_parallelism"] == str(len(os.sched_getaffinity(0)))


def test_tensorflow_uses_onednn_on_every_processor(container, composed):
    assert composed["environment"] == {"TF_ENABLE_ONEDNN_OPTS": "1"}
    assert container["env"] == [{"name": "TF_ENABLE_ONEDNN_OPTS", "value": "1"}]


def test_what_the_flags_are():
    assert model_server.FLAGS == {
        "grpc_max_threads": "64",
        "tensorflow_intra_op_parallelism": "1",
        "max_num_load_retries": "0",
        "enable_grpc_healthcheck_service": "true",
    }


def test_files_are_mounted_where_the_flags_look(container, composed):
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert mounted == [volume.split(":")[1] for volume in composed["volumes"]] == ["/models", "/config"]
    files = [value for name, value in flags_of(composed["command"]).items() if name.endswith("_file")]
    written = {f"/config/{name}" for name in (configuration.MODELS_NAME, configuration.MONITORING_NAME)}
    assert set(files) == written
    assert all(volume.endswith(":ro") for volume in composed["volumes"])


def test_compose_opens_no_port_to_other_machines(composed):
    assert all(port.startswith("127.0.0.1:") for port in composed["ports"])


@pytest.mark.parametrize(("state", "healthy"), [("AVAILABLE", True), ("START", False), (None, False)])
def test_the_health_check_of_compose_reads_the_state(composed, state, healthy):
    class Status(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/v1/models/squeezenet"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f'{{"model_version_status": [{{"version": "1", "state": "{state}"}}]}}'.encode())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Status)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    if state is None:
        server.shutdown()
        server.server_close()
    kind, *command = composed["healthcheck"]["test"]
    assert kind == "CMD"
    command = [word.replace("8501", str(server.server_port)) for word in command]
    done = subprocess.run(command, timeout=20, capture_output=True)
    if state is not None:
        server.shutdown()
        server.server_close()
    thread.join()
    assert (done.returncode == 0) == healthy
