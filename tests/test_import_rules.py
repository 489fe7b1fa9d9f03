"""Imports go one way, and importing the package is light; see the layout in docs/contributing.md."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# From what imports nothing of the project to what is imported by nobody. A module may import from its own layer's
# modules listed in the same row, and from every row above.
LAYERS = [
    ["sqz_keras.metaparams"],
    ["sqz_keras.spec"],
    ["sqz_keras.importers", "sqz_keras.codec"],
    [
        "sqz_keras",
        "sqz_keras.applications",
        "sqz_keras.blocks",
        "sqz_keras.command",
        "sqz_keras.drawing",
        "sqz_keras.fetch",
        "sqz_keras.files",
        "sqz_keras.graph_images",
        "sqz_keras.images",
        "sqz_keras.preprocessing",
        "sqz_keras.records",
        "sqz_keras.squeezenet",
        "sqz_keras.summary",
        "sqz_keras.weights",
    ],
    ["sqz_keras.compression"],
    ["sqz_keras.cli", "trainers", "export"],
]
TOP = LAYERS[-1]
# Third parties that only some parts may name, and never at a module's top level inside sqz_keras.
ONLY_IN = {
    "tf_keras": ["sqz_keras/compression/tf_keras_bridge.py"],
    "tensorflow_model_optimization": ["sqz_keras/compression/tfmot_stages.py"],
    "tensorflow_datasets": ["trainers/"],
    "sklearn": ["trainers/"],
    "optuna": ["trainers/sweep"],
    "grpc": ["export/"],
    "grpc_health": ["export/"],
    "tensorflow_serving": ["export/"],
    "onnx": ["sqz_keras/importers/onnx_file.py", "export/onnx_file.py"],
}
HEAVY = [
    "tensorflow_model_optimization",
    "tf_keras",
    "tensorflow_datasets",
    "grpc",
    "onnx",
    "sklearn",
    "PIL",
    "tensorflow",
]


def sources():
    for top in ("sqz_keras", "trainers", "export"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, path


def imports(path):
    """(imported module, line, whether it is at the top level) of each import statement."""
    tree = ast.parse(path.read_text("utf-8"))
    at_top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, id(node) in at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno, id(node) in at_top) for alias in node.names)


def row(module):
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        for number, names in enumerate(LAYERS):
            if prefix in names:
                return number, prefix
    raise AssertionError(f"{module} is in no layer: add it to LAYERS where it belongs")


def test_there_is_something_to_check():
    assert {name.split(".")[0] for name, _ in sources()} == {"sqz_keras", "trainers", "export"}


def test_imports_go_down():
    wrong = []
    for name, path in sources():
        mine, prefix = row(name)
        for module, line, _ in imports(path):
            if module.split(".")[0] not in ("sqz_keras", "trainers", "export"):
                continue
            theirs, other = row(module)
            if theirs > mine or (theirs == mine and mine == len(LAYERS) - 1 and other != prefix):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert wrong == []


def test_the_models_have_no_circles():
    """Inside the one row with several modules, too."""
    graph = {name: {row(m)[1] for m, _, _ in imports(path) if m.startswith("sqz_keras")} for name, path in sources()}
    graph = {name: {each for each in needed if each != "sqz_keras"} for name, needed in graph.items()}

    def reaches(start, goal, seen):
        for each in graph.get(start, ()):
            if each == goal or (each not in seen and reaches(each, goal, seen | {each})):
                return True
        return False

    assert [name for name in graph if name in LAYERS[3] and reaches(name, name, {name})] == []


def test_third_parties_stay_where_they_belong():
    wrong = []
    for _, path in sources():
        place = path.relative_to(ROOT).as_posix()
        for module, line, at_top in imports(path):
            allowed = ONLY_IN.get(module.split(".")[0])
            if allowed and not any(place.startswith(each) for each in allowed):
                wrong.append(f"{place}:{line} imports {module}")
            if allowed and place.startswith("sqz_keras/") and at_top:
                wrong.append(f"{place}:{line} imports {module} at its top level")
    assert wrong == []


def test_tf_keras_by_its_old_name_is_written_nowhere():
    for _, path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = isinstance(node, ast.Attribute) and node.attr == "keras" and isinstance(node.value, ast.Name)
            assert not (names and node.value.id in ("tf", "tensorflow")), f"{path}:{node.lineno}"


def test_reading_files_and_help_need_no_keras():
    modules = "sqz_keras, sqz_keras.importers, sqz_keras.cli.inspect, trainers.train, trainers.compress, export.predict"
    code = f"import sys, {modules}; print([name for name in ['keras', 'tensorflow', 'jax'] if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "[]\n"


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_importing_the_package_is_light(backend):
    """Nothing heavy beyond what Keras itself imports."""
    code = "import sys; {}; print([name for name in {} if name in sys.modules])"
    env = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    loaded, with_keras = (
        ast.literal_eval(subprocess.check_output([sys.executable, "-c", code.format(name, HEAVY)], env=env, text=True))
        for name in ("from sqz_keras import *", "import keras")
    )
    assert loaded == with_keras
    if backend == "jax":
        assert "tensorflow" not in loaded
