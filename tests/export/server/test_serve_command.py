"""sqz-serve: from its start to SIGTERM, over TLS, and with TensorFlow's model server in its place."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import pytest
from absl import flags

from export import predict, serve
from export.client.client import Client, ServingError
from export.client.pem import read_pem
from export.server import model_server, run
from export.server.run import read_key_and_cert
from export.server.serving import ServerConfig
from export.server.serving import serve as serve_embedded
from tests.export.samples import encode, random_image

ROOT = pathlib.Path(__file__).parents[3]

# Stands in for tensorflow_model_server: it records its arguments and its TLS configuration, and listens. With "broken"
# in the base path it ends at once; with "hanging" it never listens.
FAKE = f"""#!{sys.executable}
import json, os, signal, socket, sys
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
if "broken" in flags["model_base_path"]:
    sys.exit("no such model")
ssl = open(flags["ssl_config_file"]).read() if "ssl_config_file" in flags else None
with open(os.environ["FAKE_RECORD"], "w") as file:
    json.dump([flags, ssl], file)
if "hanging" not in flags["model_base_path"]:
    listening = socket.create_server(("127.0.0.1", int(flags["port"])))
signal.sigwait([signal.SIGTERM])
"""


@pytest.fixture(scope="module")
def key_and_cert(tmp_path_factory):
    """Paths of a private key and its self-signed certificate, for 127.0.0.1 and the name squeezenet.test."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:squeezenet.test"]
    subprocess.run([*command.split(), *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return key, cert


# Resets the signals that a process inherits as ignored from nohup or from a shell's background jobs, and becomes the
# command in its arguments. A function for that between fork and exec could hang: gRPC has threads in this process.
HEEDING_SIGNALS = """
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def started(tmp_path):
    """Starts sqz-serve in a process of its own, and returns once its port file is there."""
    processes = []

    def start(*arguments, wait=True, start_new_session=False, **environment):
        port_file = tmp_path / "port"
        port_file.write_text("1\n")  # an earlier server's
        command = [sys.executable, "-m", "export.serve", "--port=0", f"--port_file={port_file}", *arguments]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", HEEDING_SIGNALS, *command],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=start_new_session,
        )
        processes.append(process)
        process.first_line = process.stdout.readline() if wait else None
        return process, port_file

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.large
def test_from_start_to_sigterm_over_tls(base_path, key_and_cert, started, tmp_path, run_command, capsys):
    key, cert = key_and_cert
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encode(random_image(40, 40)))
    process, port_file = started(f"--base_path={base_path}", "--embedded", f"--ssl_key={key}", f"--ssl_cert={cert}")
    address = f"127.0.0.1:{port_file.read_text().strip()}"
    assert process.first_line == f"Serving squeezenet on {address} with the embedded server\n"
    assert run_command(predict, f"--server={address}", f"--image={photo}", f"--ssl_ca={cert}") == 0
    assert capsys.readouterr().out.startswith(f"{photo}\n")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert not port_file.exists()


def test_tls_refuses_whom_it_should(base_path, key_and_cert):
    key, cert = (path.read_bytes() for path in key_and_cert)
    trusted = grpc.ssl_channel_credentials(cert)
    data = encode(random_image(20, 20))
    with serve_embedded(base_path, ServerConfig(port=0, key_and_cert=(key, cert))) as port:
        for credentials, name, fits in (
            (trusted, None, True),
            (trusted, "squeezenet.test", True),
            (trusted, "other.test", False),
            (grpc.ssl_channel_credentials(), None, False),
            (None, None, False),
        ):
            options = {"credentials": credentials, "server_name": name, "timeout_seconds": 30 if fits else 0.3}
            with Client(f"127.0.0.1:{port}", **options) as client:
                if fits:
                    assert client.predict(data)[0].status == "OK"
                    continue
                with pytest.raises(ServingError, match="TLS") as caught:
                    client.predict(data)
                assert caught.value.code == grpc.StatusCode.UNAVAILABLE


def test_wrong_tls_files_are_clear_errors(key_and_cert, tmp_path):
    key, cert = map(str, key_and_cert)
    for pair, message in (((key, None), "both"), ((None, cert), "both"), ((cert, key), "PEM"), ((key, key), "PEM")):
        with pytest.raises(ValueError, match=message):
            read_key_and_cert(*pair)
    with pytest.raises(OSError, match="missing"):
        read_key_and_cert(key, str(tmp_path / "missing"))
    assert read_key_and_cert(None, None) is None


@pytest.mark.parametrize("kind", ["ed25519", "ec -pkeyopt ec_paramgen_curve:P-521"])
def test_keys_with_which_no_client_could_connect_are_refused(key_and_cert, tmp_path, kind):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = f"openssl req -x509 -newkey {kind} -nodes -days 2 -subj /CN=test -keyout {key} -out {cert}"
    subprocess.run(command.split(), check=True, capture_output=True)
    with pytest.raises(ValueError, match=r"key\.pem must be an RSA key, or one of the curve P-256 or P-384"):
        read_key_and_cert(str(key), str(cert))


def test_what_is_around_the_blocks_of_a_pem_file_is_left_out(key_and_cert, tmp_path):
    """A byte order mark used to be reported as a taken address, and text beyond ASCII broke the model server's file."""
    around = []
    for path in key_and_cert:
        around.append(tmp_path / path.name)
        around[-1].write_bytes(b"\xef\xbb\xbfBag Attributes\n    friendlyName: M\xc3\xbcller\n" + path.read_bytes())
    key, cert = key_and_cert
    assert read_key_and_cert(*map(str, around)) == (key.read_bytes(), cert.read_bytes())
    assert read_pem(around[1], certificates=True) == [cert.read_bytes()]


@pytest.fixture
def with_fake(tmp_path):
    """Environment variables that put a fake model server on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    fake = folder / model_server.BINARY
    fake.write_text(FAKE)
    fake.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "FAKE_RECORD": str(tmp_path / "record.json")}


def version_in(folder):
    """Creates a version in the folder, and returns the folder."""
    (folder / "1").mkdir(parents=True)
    return folder


def test_the_model_server_is_started_where_it_is_on_the_path(key_and_cert, started, with_fake, tmp_path):
    key, cert = key_and_cert
    process, port_file = started(
        f"--base_path={version_in(tmp_path)}", "--model_name=net", f"--ssl_key={key}", f"--ssl_cert={cert}", **with_fake
    )
    port = port_file.read_text().strip()
    arguments, ssl_config = json.loads(pathlib.Path(with_fake["FAKE_RECORD"]).read_text())
    config_file = pathlib.Path(arguments.pop("ssl_config_file"))
    assert arguments == {
        "port": port,
        "model_name": "net",
        "model_base_path": str(tmp_path),
        "tensorflow_inter_op_parallelism": str(len(os.sched_getaffinity(0))),
        "grpc_channel_arguments": "grpc.so_reuseport=0",
        **model_server.FLAGS,
    }
    fields = dict(line.split(": ", 1) for line in ssl_config.splitlines())
    assert json.loads(fields["server_key"]) == key.read_text()
    assert json.loads(fields["server_cert"]) == cert.read_text()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "listens on every address" in errors
    assert not port_file.exists() and not config_file.exists()


def test_a_connection_of_the_port_to_itself_is_no_server(monkeypatch):
    """Linux makes one now and then, if it chooses the port that it is to connect to as the connection's own."""
    process, stopped, made = subprocess.Popen(["sleep", "60"]), threading.Event(), []

    def to_itself(address, timeout):
        if made:
            stopped.set()
            raise ConnectionRefusedError
        made.append(socket.socket())
        made[0].bind(address)
        made[0].connect(address)
        return made[0]

    monkeypatch.setattr(socket, "create_connection", to_itself)
    with process:
        model_server._wait_until_open(model_server._free_port(0), process, stopped)
        process.kill()
    assert stopped.is_set()


def test_the_model_servers_end_is_ours(started, with_fake, tmp_path):
    process, port_file = started(f"--base_path={version_in(tmp_path / 'broken')}", **with_fake)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, process.first_line) == (1, "")
    assert "ended before it served" in errors and "no such model" in errors
    assert not port_file.exists()

    process, port_file = started(f"--base_path={version_in(tmp_path)}", **with_fake)
    (child,) = children(process.pid)
    os.kill(child, signal.SIGKILL)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "ended by itself, with status -9" in errors


def test_the_model_server_is_stopped_before_it_serves_too(started, with_fake, tmp_path):
    process, port_file = started(f"--base_path={version_in(tmp_path / 'hanging')}", wait=False, **with_fake)
    (child,) = children(process.pid)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, ""), errors
    assert not pathlib.Path(f"/proc/{child}").exists()
    assert not port_file.exists()


def test_the_port_file_of_another_server_stays(started, with_fake, tmp_path, run_command, monkeypatch):
    process, port_file = started(f"--base_path={version_in(tmp_path)}", **with_fake)
    monkeypatch.setenv("PATH", with_fake["PATH"])
    with pytest.raises(ValueError, match="--embedded"):
        run_command(serve, f"--base_path={tmp_path}", "--host=127.0.0.1", f"--port_file={port_file}")
    was_kept = port_file.exists()
    port_file.write_text("1\n")  # a server that was started later
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert was_kept and port_file.read_text() == "1\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_the_end_of_a_terminal_end_both_in_order(started, with_fake, tmp_path, number):
    process, _ = started(f"--base_path={version_in(tmp_path)}", start_new_session=True, **with_fake)
    (child,) = children(process.pid)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert not pathlib.Path(f"/proc/{child}").exists()


def test_what_the_model_server_would_wait_for_or_share_is_refused(with_fake, tmp_path, run_command, monkeypatch):
    monkeypatch.setenv("PATH", with_fake["PATH"])
    with pytest.raises(ValueError, match=r"subfolders are versions \(1, 2, ...\), got no folder"):
        run_command(serve, f"--base_path={tmp_path / 'typo'}")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match=r"Cannot listen on 0\.0\.0\.0"):
        run_command(serve, f"--base_path={version_in(tmp_path)}", f"--port={taken.getsockname()[1]}")


def children(pid):
    """The processes that a process has started."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pids = [
            int(child)
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        if pids:
            return pids
        time.sleep(0.05)
    return []


def test_an_address_that_the_model_server_cannot_keep_to_is_refused(with_fake, tmp_path, run_command, monkeypatch):
    monkeypatch.setenv("PATH", with_fake["PATH"])
    with pytest.raises(ValueError, match="--embedded"):
        run_command(serve, f"--base_path={tmp_path}", "--host=127.0.0.1")
    assert "base_path" not in flags.FLAGS


def test_what_no_client_could_find_is_refused_before_the_model_is_loaded(tmp_path, run_command):
    for flag, message in (
        ("--model_name=", "model_name must not be empty"),
        (f"--port_file={tmp_path / 'missing' / 'port'}", "must be a file in an existing folder"),
    ):
        with pytest.raises(ValueError, match=message):
            run_command(serve, f"--base_path={tmp_path}", "--embedded", flag)


def test_a_signal_just_before_the_server_waits_ends_it_too(monkeypatch):
    """Such a signal does not interrupt the wait, so its handler runs late and does not wake anyone."""
    monkeypatch.setattr(run, "_embedded", lambda *_: contextlib.nullcontext(8500))
    stopped = threading.Event()
    monkeypatch.setattr(stopped, "set", lambda: setattr(stopped, "_flag", True))
    server = threading.Thread(target=run.run_server, args=(run.ServeConfig("any", embedded=True), stopped), daemon=True)
    server.start()
    time.sleep(0.2)
    stopped.set()
    server.join(10)
    assert not server.is_alive()
