"""Imports go one way, and importing the package is light; see the layout in docs/contributing.md."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# From modules that import nothing of the project to modules that nothing imports. A module imports from the rows above
# its own and from its own room, never from another room of its own row.
ROWS = [
    [
        "sqz_keras.version",
        "sqz_keras.differences",
        "sqz_keras.extras",
        "sqz_keras.files",
        "sqz_keras.memory",
        "sqz_keras.protobuf",
        "sqz_keras.quiet",
    ],
    ["sqz_keras.architecture", "sqz_keras.backend", "sqz_keras.codec"],
    ["sqz_keras.command", "sqz_keras.weights", "sqz_keras.images"],
    ["sqz_keras.models", "sqz_keras.runtimes"],
    ["sqz_keras.compression", "sqz_keras.applications", "sqz_keras.explain", "sqz_keras.hub"],
    ["sqz_keras"],
    ["sqz_keras.cli", "trainers.progress", "export.contract", "export.message_types"],
    ["trainers.datasets", "trainers.evaluation.metrics", "trainers.evaluation.objectives", "export.versions"],
    ["trainers.data", "export.graph", "export.client", "export.warmup"],
    ["trainers.evaluation", "trainers.reports", "export.verify"],
    ["trainers.training", "export.formats", "export.page"],
    ["trainers.configs", "trainers.evaluation.config", "export.server"],
    ["trainers.config_flags", "trainers.compression", "trainers.evaluation.run", "trainers.search"],
    ["trainers", "export"],
]
# Third-party packages that only some parts may name, and never at a module's top level inside sqz_keras.
ONLY_IN = {
    "tf_keras": ["sqz_keras/compression/tf_keras_bridge.py"],
    "tensorflow_model_optimization": ["sqz_keras/compression/tfmot_stages.py"],
    "tensorflow_datasets": ["trainers/"],
    "sklearn": ["trainers/"],
    "keras_hub": ["sqz_keras/hub/"],
    "huggingface_hub": ["sqz_keras/weights/hugging_face.py"],
    "optuna": ["trainers/search/"],
    "grpc": ["export/"],
    "starlette": ["export/page/"],
    "uvicorn": ["export/page/"],
    "grpc_health": ["export/"],
    "tensorflow_serving": ["export/server/", "export/formats/", "export/warmup.py", "export/verify.py"],
    "onnx": ["sqz_keras/weights/readers/onnx_"],
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
    """(module, path) of every file of the three packages."""
    for top in ("sqz_keras", "trainers", "export"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, path


def imports(path):
    """(imported module or name, line, whether it is at the top level) of each import statement."""
    tree = ast.parse(path.read_text("utf-8"))
    at_top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, id(node) in at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno, id(node) in at_top) for alias in node.names)


def import_graph():
    """The modules of the project that each of its modules imports, wherever in the file the statement stands."""
    modules = dict(sources())
    graph = {}
    for name, path in modules.items():
        graph[name] = set()
        for imported, _, _ in imports(path):
            module = imported if imported in modules else imported.rpartition(".")[0]
            if module in modules:
                graph[name].add(module)
    return graph


def find_cycle(graph):
    """The modules of a cycle in the order of their imports, or []."""
    done = set()

    def visit(module, way):
        if module in way:
            return way[way.index(module) :]
        if module in done:
            return []
        done.add(module)
        return next(filter(None, (visit(other, [*way, module]) for other in sorted(graph[module]))), [])

    return next(filter(None, (visit(module, []) for module in sorted(graph))), [])


def room(module):
    """(row, room) of a module: the longest name in ROWS that it begins with."""
    matches = [
        (len(name), number, name)
        for number, names in enumerate(ROWS)
        for name in names
        if f"{module}.".startswith(f"{name}.")
    ]
    _, number, name = max(matches)
    return number, name


def upward_imports(graph):
    """The imports of a graph that go up, or across a row."""
    wrong = []
    for module, imported in graph.items():
        for other in imported:
            (mine, my_room), (theirs, their_room) = room(module), room(other)
            if theirs > mine or (theirs == mine and my_room != their_room):
                wrong.append(f"{module} imports {other}")
            if {module.split(".")[0], other.split(".")[0]} == {"trainers", "export"}:
                wrong.append(f"{module} imports {other}")
    return wrong


def test_there_is_something_to_check():
    graph = import_graph()
    assert {name.split(".")[0] for name in graph} == {"sqz_keras", "trainers", "export"}
    assert "sqz_keras.codec.container" in graph["sqz_keras.codec.decoder"]
    assert "sqz_keras.weights.sqz" in graph["sqz_keras.weights.resolve"]


def test_imports_go_down():
    assert upward_imports(import_graph()) == []


def test_there_are_no_cycles():
    assert find_cycle(import_graph()) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("sqz_keras.weights.records", "sqz_keras.weights.resolve"),  # inside a room
        ("sqz_keras.codec.errors", "sqz_keras.codec"),  # of a module with its own package
        ("trainers.training.config", "trainers.training.loop"),
    ],
)
def test_a_planted_cycle_is_found(module, imported):
    graph = import_graph()
    graph[module].add(imported)
    cycle = find_cycle(graph)
    assert module in cycle and imported in cycle


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("sqz_keras.weights.records", "sqz_keras"),
        ("sqz_keras.codec.container", "sqz_keras.architecture.spec"),
        ("sqz_keras.images.files", "sqz_keras.weights.arrays"),
        ("sqz_keras.compression.bits", "trainers.progress"),
        ("trainers.data.batches", "trainers.training.config"),
        ("trainers.search.study", "trainers.compression.run"),
        ("trainers.train", "export.contract"),
        ("export.contract", "export.formats.config"),
    ],
)
def test_a_planted_arrow_upwards_is_found(module, imported):
    graph = import_graph()
    graph[module].add(imported)
    assert upward_imports(graph) == [f"{module} imports {imported}"]


def test_third_parties_stay_where_they_belong():
    wrong = []
    for _, path in sources():
        place = path.relative_to(ROOT).as_posix()
        for module, line, at_top in imports(path):
            allowed = ONLY_IN.get(module.split(".")[0])
            if allowed and not any(place.startswith(folder) for folder in allowed):
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
    modules = (
        "sqz_keras, sqz_keras.weights.readers, sqz_keras.cli.inspect, sqz_keras.cli.receive, sqz_keras.runtimes.run"
    )
    commands = "trainers.train, trainers.compress, export.predict"
    loaded = "[name for name in ['keras', 'tensorflow', 'jax'] if name in sys.modules]"
    code = f"import sys, {modules}, {commands}; print({loaded})"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "[]\n"


def test_completion_lists_every_name_and_loads_none():
    names = "sqz_keras.__all__, dir(sqz_keras), [name for name in ['keras', 'tensorflow'] if name in sys.modules]"
    code = f"import sys, sqz_keras; print(({names}))"
    public, listed, loaded = ast.literal_eval(
        subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    )
    assert {"SqueezeNet", "applications", "load"} <= set(public)
    assert {*public, "__version__"} <= set(listed)
    assert loaded == []


def test_a_name_that_does_not_exist_is_answered_with_one_that_does():
    code = "import sqz_keras; sqz_keras.SqueezeNet1_1"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stderr.endswith("has no attribute 'SqueezeNet1_1'. Did you mean: 'SqueezeNetV1_1'?\n")


def test_applications_is_an_attribute_as_in_keras():
    code = (
        "import sqz_keras; a = sqz_keras.applications; print(a.squeezenet.SqueezeNet is a.SqueezeNet, "
        "a.squeezenet.preprocess_input is sqz_keras.preprocess_input)"
    )
    environment = {"KERAS_BACKEND": "jax"}  # the backend quickest to import
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True) == "True True\n"


@pytest.mark.large
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
