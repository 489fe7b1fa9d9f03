"""A missing package is named in one line, with the extra that installs it; what needs no extra works."""

import json
import re
import tomllib

import numpy as np
import pytest
from PIL import Image

from sqz_keras import Metaparameters, ModelSpec, codec
from sqz_keras.extras import MissingExtraError, needs, require
from sqz_keras.weights import sqz
from tests import environments

SMALL = Metaparameters(base_e=8, incr_e=8, num_fire_modules=3, stem_filters=8, stem_kernel=3, pool_after=(1, 3))
SPEC = ModelSpec(version=None, metaparameters=SMALL, classes=4, input_size=35)
KERAS = "keras; install it with: pip install 'sqz-keras[tensorflow]', 'sqz-keras[jax]' or 'sqz-keras[torch]'"


def one(package, extra):
    return f"{package}; install it with: pip install 'sqz-keras[{extra}]'"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An environment with only the base packages."""
    return environments.make(tmp_path_factory.mktemp("base") / "packages", only=environments.BASE)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model, other files of weights whose content does not matter, and a picture."""
    folder = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in SPEC.weight_shapes().items()}
    (folder / "net.sqz").write_bytes(codec.encode(arrays, sqz.header(SPEC, arrays, {"stages": []})))
    for name in ("net.onnx", "net.keras", "net.weights.h5"):
        (folder / name).write_bytes(b"")
    (folder / "photos").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "photos" / "class0_a.png")
    return folder


# Arguments of `python -m` -> what is missing, or None if the base is enough.
COMMANDS = {
    "sqz_keras.cli.classify photos/class0_a.png --model=net.sqz": KERAS,
    "sqz_keras.cli.inspect net.sqz": None,
    "sqz_keras.cli.receive net.sqz --output=net.onnx": None,
    "sqz_keras.cli.receive net.sqz --output=net.tflite": one("flatbuffers", "receiver"),
    "sqz_keras.cli.summary --model=net.sqz --drawing=net.svg": None,
    "sqz_keras.cli.summary --drawing=net.png": one("vl_convert", "report"),
    "sqz_keras.cli.summary --model=net.onnx": KERAS.replace("keras", "onnx", 1),
    "sqz_keras.cli.summary --model=net.keras": KERAS.replace("keras", "h5py", 1),
    "trainers.evaluate --image_dir=photos --model=net.sqz": KERAS,
    "trainers.train --config=smoke --workdir=run": one("tensorflow", "train"),
    "trainers.train --config=smoke --workdir=run --dry_run": one("keras", "train"),
    "trainers.prepare_imagenet --manual_dir=photos": one("tensorflow_datasets", "train"),
    "trainers.sweep --space=bypass --dry_run": one("optuna", "sweep"),
    "trainers.compress --model=net.sqz --output=same.sqz": None,
    "trainers.compress --model=net.sqz --output=few.sqz --method=kmeans --bits=3": None,
    "trainers.compress --model=net.sqz --output=tested.sqz --self_test": one("flatbuffers", "receiver"),
    "trainers.compress --model=net.sqz --output=q.sqz --method=quantize --target_bytes=900 --calibration_dir=photos": (
        one("keras", "tensorflow")
    ),
    "trainers.compress --model=net.sqz --output=f.sqz --method=finetune --bits=3 --image_dir=photos": (
        one("tensorflow", "compress")
    ),
    "export.export --model=net.sqz --base_path=served": one("tensorflow_serving", "serve"),
    "export.export --verify=served/1": one("keras", "serve"),
    "export.export --model=net.sqz --format=onnx --output=out.onnx": one("keras", "tensorflow"),
    "export.serve --base_path=served --port=0 --embedded": one("grpc", "serve"),
    "export.predict photos/class0_a.png": one("grpc", "client"),
    "export.serving_config --output_dir=config": None,
    "export.serving_config --check=config": one("google", "client"),
    "export.serving_tar --output=layer.tar --entry=a=photos": None,
}


@pytest.mark.parametrize(("command", "missing"), COMMANDS.items(), ids=COMMANDS)
def test_every_command_on_the_base(base, files, command, missing):
    module, *arguments = command.split()
    result = environments.run(base, "-m", module, *arguments, cwd=files)
    if missing is None:
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in result.stderr
    else:
        name = f"{module.rpartition('.')[2]}.py"
        assert (result.returncode, result.stderr) == (1, f"{name}: needs the package {missing}\n")


def test_every_command_is_tried():
    scripts = tomllib.loads((environments.ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert {target.split(":")[0] for target in scripts.values()} <= {command.split()[0] for command in COMMANDS}


def test_a_compression_without_the_packages_of_the_report_says_so(base, files):
    result = environments.run(
        base, "-m", "trainers.compress", "--model=net.sqz", "--output=quiet.sqz", "--method=kmeans", "--bits=2",
        cwd=files,
    )  # fmt: skip
    assert (
        result.stderr.splitlines()[-1] == f"report: quiet.json; quiet.html needs the package {one('altair', 'report')}"
    )
    assert json.loads((files / "quiet.json").read_text("utf-8"))["bytes"] == (files / "quiet.sqz").stat().st_size


# All of these run in the base environment. The statements of NAMES need an extra; BASE_IS_ENOUGH needs none.
NAMES = {
    "from sqz_keras import SqueezeNet": KERAS,
    "import sqz_keras; sqz_keras.load": KERAS,
    "from sqz_keras.applications import SqueezeNet": KERAS,
    "import sqz_keras; sqz_keras.applications": KERAS,
    "from sqz_keras.models.squeezenet import build": KERAS,
    "import sqz_keras; sqz_keras.resolve_model('net.onnx')": KERAS.replace("keras", "onnx", 1),
    "import sqz_keras; sqz_keras.resolve_model('net.weights.h5')": KERAS.replace("keras", "h5py", 1),
    "import sqz_keras; sqz_keras.prepare_images([[[0, 0, 0]]], sqz_keras.ModelSpec())": KERAS,
    "from sqz_keras.compression.quantize import quantize": one("keras", "tensorflow"),
    "from sqz_keras.compression.tfmot_stages import prune": one("keras", "compress"),
    "from sqz_keras.compression.tf_keras_bridge import to_keras": one("keras", "compress"),
    "import sqz_keras.hub": one("keras", "hub"),
    "import sqz_keras; sqz_keras.resolve_model('hf://owner/name/net.sqz')": one("huggingface_hub", "huggingface"),
    "from export.client.client import Client": one("grpc", "client"),
    "from export.client.async_client import AsyncClient": one("grpc", "client"),
    "from export.formats.saved_model import check_installed; check_installed()": one("tensorflow_serving", "serve"),
    "from trainers.training.loop import train_and_evaluate": one("keras", "train"),
}
BASE_IS_ENOUGH = """
import numpy as np
import sqz_keras
from export.server.model_server import ssl_config
from sqz_keras import codec, decode_predictions, get_record, list_records, preprocess_input, resolve_model
from sqz_keras.compression.kmeans import kmeans
from trainers.configs import load_config
spec, arrays = resolve_model("net.sqz")
kmeans(arrays, bits=4)
preprocess_input(np.zeros((2, 35, 35, 3), np.uint8), "channels_last", spec.preprocessing.mode)
decode_predictions(np.zeros((1, 1000)))
load_config("digits")
"""


def test_every_function_and_attribute_on_the_base(base, files):
    script = f"""
import json, sys
messages = []
for code in {list(NAMES)}:
    try:
        exec(code, {{}})
        messages.append(None)
    except ModuleNotFoundError as error:
        messages.append(str(error))
{BASE_IS_ENOUGH}
print(json.dumps(messages))
"""
    result = environments.run(base, "-c", script, cwd=files)
    assert result.returncode == 0, result.stderr
    expected = {code: f"needs the package {missing}" for code, missing in NAMES.items()}
    assert dict(zip(NAMES, json.loads(result.stdout), strict=True)) == expected


def test_a_backend_that_was_chosen_and_is_missing_is_named(tmp_path):
    packages = environments.make(tmp_path / "packages", without=("tensorflow", "jax", "torch", "openvino"))
    for env, missing in (({}, "tensorflow"), ({"KERAS_BACKEND": "jax"}, "jax")):
        result = environments.run(
            packages, "-c", "from sqz_keras import SqueezeNet", env=env | {"KERAS_HOME": str(tmp_path)}
        )
        last = result.stderr.splitlines()[-1]
        assert re.search(rf"needs the package {missing}; .*'sqz-keras\[{missing}\]'", last), last


@pytest.mark.large
def test_what_needs_tensorflow_says_so_on_another_backend(tmp_path):
    packages = environments.make(tmp_path / "packages", without=("tensorflow", "torch"))
    code = "from sqz_keras.backend import check_is_tensorflow; check_is_tensorflow('Training')"
    result = environments.run(packages, "-c", code, env={"KERAS_BACKEND": "", "KERAS_HOME": str(tmp_path)})
    expected = "ValueError: Training needs Keras on TensorFlow, not on jax; set KERAS_BACKEND=tensorflow."
    assert result.stderr.splitlines()[-1] == expected
    code = "from sqz_keras.compression.quantize import quantize"
    result = environments.run(packages, "-c", code, env={"KERAS_BACKEND": "", "KERAS_HOME": str(tmp_path)})
    assert result.stderr.splitlines()[-1].endswith(one("tensorflow", "tensorflow"))


def test_the_outer_block_knows_which_of_the_extras_with_keras_is_meant():
    with (
        pytest.raises(MissingExtraError, match=r"needs the package keras; .* pip install 'sqz-keras\[train\]'$"),
        needs("train"),
        needs("tensorflow", "jax", "torch"),
    ):
        raise ModuleNotFoundError(name="keras.src")
    with pytest.raises(MissingExtraError, match=r"'sqz-keras\[report\]'$"), needs("train"):
        require("no_such_package", "report")


@pytest.mark.parametrize("name", ["sqz_keras.nothing", "_sqlite3", None])
def test_a_defect_is_no_missing_extra(name):
    with pytest.raises(ModuleNotFoundError) as caught, needs("train"):
        raise ModuleNotFoundError(name=name)
    assert not isinstance(caught.value, MissingExtraError)
