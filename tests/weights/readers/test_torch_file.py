import argparse
import collections
import datetime
import io
import pathlib
import pickle
import re
import struct
import sys
import types
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.readers import WeightsFileError, torch_file
from sqz_keras.weights.readers.state_pickle import read_pickle
from sqz_keras.weights.resolve import resolve_model
from tests.weights.readers.mutations import (
    SHAPES,
    assert_equal,
    broken_arrays,
    check_harmless,
    check_refused,
    check_refused_in_little_memory,
    flips,
    load,
    oihw,
    random_arrays,
    truncations,
)

FILE_NAME = "squeezenet.pth"
V1_0, V1_1 = (
    dict(zip([f"fire{number}" for number in range(2, 10)], positions, strict=True))
    for positions in ((3, 4, 5, 7, 8, 9, 10, 12), (3, 4, 6, 7, 9, 10, 11, 12))
)
STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
}


def theirs(name, modules=V1_0):
    """torchvision's name of a weight; `modules` are the numbers of the fire modules."""
    layer, part = name.split("/")
    part = {"kernel": "weight", "bias": "bias"}[part]
    if layer in ("conv1", "conv10", "conv11"):
        return f"{({'conv1': 'features.0', 'conv10': 'classifier.1'}).get(layer, layer)}.{part}"
    fire, _, kind = layer.partition("_")
    return f"features.{modules.get(fire, 13)}.{kind.replace('squeeze1x1', 'squeeze')}.{part}"


def state_dict(arrays, modules=None):
    """The weights under torchvision's names: for v1.1 its own, for all other networks those of v1.0."""
    if modules is None:
        kernel = arrays.get("conv1/kernel", np.empty(0))
        modules = V1_1 if kernel.shape[:1] + kernel.shape[3:] == (3, 64) else V1_0
    return {theirs(name, modules): np.ascontiguousarray(oihw(array)) for name, array in arrays.items()}


class Writer:
    """Writes torch's two formats with `pickle` and stand-ins for torch's classes; torch itself is not needed."""

    def __init__(self, monkeypatch):
        utils = types.ModuleType("torch._utils")
        self.rebuild = types.FunctionType((lambda *_: None).__code__, {}, "_rebuild_tensor_v2")
        self.rebuild.__module__, self.rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
        utils._rebuild_tensor_v2 = self.rebuild
        torch = types.ModuleType("torch")
        torch._utils = utils
        for storage in STORAGES.values():
            setattr(torch, storage, type(storage, (), {"__module__": "torch"}))
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setitem(sys.modules, "torch._utils", utils)
        self.torch = torch

    def pickle(self, state, extra=(), edit=lambda arguments: arguments, protocol=2, wrap=collections.OrderedDict):
        rebuild, torch, arrays = self.rebuild, self.torch, list(state.values())

        class Tensor:
            def __init__(self, key, array):
                self.key, self.array = key, array

            def __reduce__(self):
                strides = tuple(stride // self.array.itemsize for stride in self.array.strides)
                storage = Storage(self.key, self.array)
                arguments = (storage, 0, self.array.shape, strides, False, collections.OrderedDict())
                return rebuild, edit(arguments)

        Storage = collections.namedtuple("Storage", ("key", "array"))

        class Pickler(pickle.Pickler):
            def persistent_id(self, item):
                if not isinstance(item, Storage):
                    return None
                kind = getattr(torch, STORAGES[item.array.dtype.name])
                return ("storage", kind, item.key, "cpu", item.array.size, *extra)

        stream = io.BytesIO()
        tensors = [(name, Tensor(str(i), array)) for i, (name, array) in enumerate(zip(state, arrays, strict=True))]
        Pickler(stream, protocol=protocol).dump(wrap(tensors))
        return stream.getvalue()

    def zipped(self, state, pickled=None, byteorder="little", **options):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("net/data.pkl", self.pickle(state, **options) if pickled is None else pickled)
            archive.writestr("net/byteorder", byteorder)
            for i, array in enumerate(state.values()):
                archive.writestr(f"net/data/{i}", array.tobytes())
            archive.writestr("net/version", "3\n")
        return stream.getvalue()

    def legacy(self, state, little_endian=True, keys=None, **options):
        keys = [str(i) for i in range(len(state))] if keys is None else keys
        system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"int": 4}}
        heads = [pickle.dumps(content, protocol=2) for content in (0x1950A86A20F9469CFC6C, 1001, system)]
        storages = [struct.pack("<q", array.size) + array.tobytes() for array in state.values()]
        return b"".join([*heads, self.pickle(state, (None,), **options), pickle.dumps(keys, protocol=2), *storages])


@pytest.fixture
def writer(monkeypatch):
    return Writer(monkeypatch)


@pytest.mark.parametrize("kind", ["zipped", "legacy"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_reads_what_was_written(writer, path, kind, dtype):
    arrays = {name: np.round(array * 8) / 8 for name, array in random_arrays().items()}
    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    if dtype is ml_dtypes.bfloat16:
        arrays = {name: array.astype(dtype).astype(np.float32) for name, array in arrays.items()}
    state = {name: array.astype(dtype) for name, array in state_dict(arrays).items()}
    path.write_bytes(getattr(writer, kind)(state))
    assert_equal(load(path), arrays)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["zipped", "legacy"])
def test_reads_pickle_protocols(writer, path, kind, protocol):
    arrays, state = random_arrays(), state_dict(random_arrays())
    path.write_bytes(getattr(writer, kind)(state, protocol=protocol))
    assert_equal(load(path), arrays)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "module.module.",
        "model.",
        "net.",
        "backbone.",
    ],
)
def test_what_wraps_a_model_is_taken_off_the_names(writer, path, prefix):
    state = {f"{prefix}{name}": array for name, array in state_dict(random_arrays()).items()}
    path.write_bytes(writer.zipped(state))
    assert_equal(load(path), random_arrays())


@pytest.mark.parametrize(
    ("head", "warns"),
    [("classifier.1.1", False), ("classifier.2", True), ("backbone.classifier.1", False), ("head", True)],
)
def test_a_head_in_another_place_than_torchvisions_draws_a_warning(writer, path, head, warns, recwarn):
    """Its names do not say whether a ReLU follows it; in `classifier`, that of torchvision follows the layer 1."""
    prefix = "" if head.startswith("classifier") else "backbone."
    names = {name: f"{prefix}{name}" for name in state_dict(random_arrays())}
    names |= {f"classifier.1.{part}": f"{head}.{part}" for part in ("weight", "bias")}
    path.write_bytes(writer.zipped({names[name]: array for name, array in state_dict(random_arrays()).items()}))
    assert_equal(load(path), random_arrays())
    assert [f"its head '{head}'" in str(warning.message) for warning in recwarn] == [True] * warns


def test_children_may_be_wrapped_by_themselves(writer, path):
    state = {name.replace("features.", "features.module."): a for name, a in state_dict(random_arrays()).items()}
    path.write_bytes(writer.zipped(state))
    assert_equal(load(path), random_arrays())


@pytest.mark.parametrize("other", ["module.features.0.weight", "features.module.0.weight", "model.features.0.weight"])
def test_a_weight_that_is_there_with_and_without_a_prefix_is_refused(writer, path, other):
    state = state_dict(random_arrays())
    path.write_bytes(writer.zipped({**state, other: state["features.0.weight"] + 1}))
    with pytest.raises(WeightsFileError, match="occurs twice"):
        torch_file.read(path)


BESIDE = {
    "epoch": 3,
    "arch": "squeezenet1_1",
    "best_acc1": 71.5,
    "resumed_from": None,
    "finished": True,
    "losses": [0.5, 0.25, -1e300],
    "seed": 2**60,
    "best": np.float64(0.5),
    "confusions": np.arange(6.0).reshape(2, 3),
    "data": pathlib.Path("photos/train"),
    "started": datetime.datetime(2026, 5, 1, 12, 30),
    "options": argparse.Namespace(lr=0.1),
    "tags": {"a", "b"},
    "counts": collections.Counter("aab"),
    "optimizer": {"state": {0: {"step": 7, "nesterov": False}}, "param_groups": [{"lr": 0.01, "betas": (0.9, 0.999)}]},
}


@pytest.mark.parametrize("kind", ["zipped", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model_state", "model", "net"])
def test_reads_the_state_dict_of_a_checkpoint(writer, path, key, kind, protocol):
    arrays = random_arrays()
    momentum = {"momentum": np.arange(6, dtype=np.float32)}

    def checkpoint(tensors):
        *weights, (_, buffer) = tensors
        optimizer = {**BESIDE["optimizer"], "state": {0: {"momentum_buffer": buffer}}}
        return {**BESIDE, "optimizer": optimizer, key: collections.OrderedDict(weights)}

    state = state_dict(arrays) | momentum
    path.write_bytes(getattr(writer, kind)(state, protocol=protocol, wrap=checkpoint))
    assert_equal(load(path), arrays)


@pytest.mark.parametrize(("version", "right"), [("1.0", V1_0), ("1.1", V1_1)])
@pytest.mark.parametrize("modules", [V1_0, V1_1, V1_1 | {"fire9": 14}], ids=["1.0", "1.1", "none"])
def test_the_numbers_of_the_fire_modules_tell_the_pools(writer, path, version, right, modules):
    shapes = ModelSpec(version, classes=2).weight_shapes()
    path.write_bytes(writer.zipped(state_dict(random_arrays(shapes), modules)))
    if modules is right:
        load(path, shapes)
    else:
        with pytest.raises(WeightsFileError, match=rf"version {version}, .* pools are behind \[1, .*, expected \[1, "):
            torch_file.read(path)


def test_an_ordered_dict_of_python_2_is_read(writer, path):
    """Python 2 pickles it as a call with a list of pairs."""

    class OrderedDict:
        def __init__(self, items):
            self.items = items

        def __reduce__(self):
            return collections.OrderedDict, ([list(item) for item in self.items],)

    state = state_dict(random_arrays())
    path.write_bytes(writer.legacy(state, wrap=OrderedDict))
    assert_equal(load(path), random_arrays())


@pytest.mark.parametrize("key", [None, (1, "a"), b"a"])
def test_keys_of_other_kinds_beside_the_weights_do_not_matter(writer, path, key):
    state = state_dict(random_arrays())
    wrap = lambda tensors: {key: 1, "state_dict": dict(tensors), "beside": {key: 2}}  # noqa: E731
    path.write_bytes(writer.zipped(state, protocol=3, wrap=wrap))
    assert_equal(load(path), random_arrays())


@pytest.mark.parametrize("beside", [list(range(210_000)), "a" * (1 << 20)], ids=["opcodes", "bytes"])
@pytest.mark.parametrize("kind", ["zipped", "legacy"])
def test_much_beside_the_weights_says_what_to_save(writer, path, kind, beside):
    state = state_dict(random_arrays())
    wrap = lambda tensors: {"beside": beside, "state_dict": dict(tensors)}  # noqa: E731
    path.write_bytes(getattr(writer, kind)(state, wrap=wrap))
    if kind == "legacy" and isinstance(beside, str):
        assert_equal(load(path), random_arrays())
    else:
        with pytest.raises(WeightsFileError, match=r"Save it alone: torch\.save\(model\.state_dict\(\)"):
            torch_file.read(path)


def test_several_state_dicts_are_refused(writer, path):
    state = state_dict(random_arrays())
    both = lambda tensors: {"model": dict(tensors), "state_dict": dict(tensors)}  # noqa: E731
    path.write_bytes(writer.zipped(state, wrap=both))
    with pytest.raises(WeightsFileError, match=r"several state dicts, state_dict, model\. Save .*torch\.save\("):
        torch_file.read(path)


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda plain, ema: {"state_dict": plain, "state_dict_ema": ema}, '["state_dict_ema"]'),
        (lambda plain, ema: {"epoch": 3, "model_ema": ema, "model": plain}, '["model_ema"]'),
        (lambda plain, ema: {"model": plain, "ema": {"decay": 0.99, "module": ema}}, '["ema"]["module"]'),
        (lambda plain, ema: {"model": plain, "ema": {f"ema_model.{key}": ema[key] for key in ema}}, '["ema"]'),
        (lambda plain, ema: {"model": plain, "ema": {"shadow_params": list(ema.values())}}, '["model"]'),
        (lambda plain, ema: {"model": plain, "ema": {key.replace(".", ""): ema[key] for key in ema}}, '["ema"]'),
    ],
)
def test_averages_of_the_weights_beside_them_are_refused(writer, path, wrap, place):
    """timm, torchvision's references and others save both; some load the averages, and some the plain weights."""
    state = state_dict(random_arrays())
    both = state | {f"module.{name}": array + 1 for name, array in state.items()}

    def checkpoint(tensors):
        return wrap(dict(tensors[: len(state)]), dict(tensors[len(state) :]))

    path.write_bytes(writer.zipped(both, wrap=checkpoint))
    with pytest.raises(WeightsFileError, match=re.escape(f'torch.save(torch.load("{FILE_NAME}"){place}, ')):
        torch_file.read(path)


def test_a_state_dict_in_two_places_is_one(writer, path):
    state = state_dict(random_arrays())

    def checkpoint(tensors):
        weights = dict(tensors)
        return {"state_dict": weights, "best": {"weights": weights}, "loss": {"weight": tensors[0][1]}}

    path.write_bytes(writer.zipped(state, wrap=checkpoint))
    assert_equal(load(path), random_arrays())


@pytest.mark.parametrize("name", ["n_averaged", "num_batches_tracked", "accuracy.total"])
def test_counters_are_left_out(writer, path, name):
    """The first name is a counter of torch.optim.swa_utils.AveragedModel."""
    state = {f"module.{name}": array for name, array in state_dict(random_arrays()).items()}
    path.write_bytes(writer.zipped({name: np.array(5), **state}))
    assert_equal(load(path), random_arrays())


def test_counters_beside_the_weights_do_not_hide_averages_of_them(writer, path):
    state = state_dict(random_arrays())
    both = {"n_averaged": np.array(5), **state, **{f"module.{name}": array + 1 for name, array in state.items()}}

    def checkpoint(tensors):
        return {"model": dict(tensors[: len(state) + 1]), "ema": dict(tensors[len(state) + 1 :])}

    path.write_bytes(writer.zipped(both, wrap=checkpoint))
    with pytest.raises(WeightsFileError, match="several state dicts, model, ema"):
        torch_file.read(path)


def test_the_channels_are_those_of_conv1(writer, path):
    shapes = ModelSpec("1.1", classes=2, channels=1).weight_shapes()
    path.write_bytes(writer.zipped(state_dict(random_arrays(shapes), V1_1)))
    spec, _ = resolve_model(path)
    assert (spec.version, spec.channels) == ("1.1", 1)


def test_a_view_that_torch_has_not_computed_is_refused(writer, path):
    state = state_dict(random_arrays())
    path.write_bytes(writer.zipped(state, edit=lambda arguments: (*arguments, {"neg": True})))
    with pytest.raises(WeightsFileError, match=r"Save tensor\.clone\(\)"):
        torch_file.read(path)


@pytest.mark.parametrize("name", ["criterion.weight", "ema_model.n_averaged", "mean"])
def test_what_is_no_layer_of_a_squeezenet_says_what_to_save(writer, path, name):
    state = {f"model.{key}": array for key, array in state_dict(random_arrays()).items()}
    path.write_bytes(writer.zipped(state | {name: np.ones(3, np.float32)}))
    with pytest.raises(WeightsFileError, match=r"Save .* alone"):
        torch_file.read(path)


@pytest.mark.parametrize("parts", [("weight_orig", "weight_mask"), ("parametrizations.weight.original0",)])
def test_weights_in_parts_say_how_to_make_them_whole(writer, path, parts):
    """torch.nn.utils.prune and torch.nn.utils.parametrize leave weights in such parts."""
    state = state_dict(random_arrays())
    kernel = state.pop("features.0.weight")
    path.write_bytes(writer.zipped({f"features.0.{part}": kernel for part in parts} | state))
    with pytest.raises(WeightsFileError, match=r"only part of a weight.*torch\.nn\.utils\.prune\.remove\("):
        torch_file.read(path)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("_rebuild_qtensor", "a quantised tensor. Save the state dict of the float model"),
        ("_rebuild_sparse_tensor", "a sparse tensor. Save tensor.to_dense()"),
        ("_rebuild_tensor_v3", "a tensor of a type such as float8. Save tensor.float()"),
        ("_rebuild_meta_tensor_no_storage", "a tensor of the device meta, without values. Load"),
    ],
)
def test_tensors_of_other_kinds_say_what_to_save(writer, path, function, message):
    """The file already holds nothing but the state dict."""
    state = state_dict(random_arrays())
    pickled = writer.pickle(state).replace(b"_rebuild_tensor_v2", function.encode())
    path.write_bytes(writer.zipped(state, pickled))
    with pytest.raises(WeightsFileError, match=re.escape(f"{path}: holds {message}")):
        torch_file.read(path)


def test_a_dense_layer_in_the_place_of_conv10_does_not_matter_to_the_trunk(writer, path):
    """This is what `model.classifier[1] = nn.Linear(512, 6)` makes."""
    state, channels = state_dict(random_arrays()), SHAPES["conv10/kernel"][2]
    state |= {"classifier.1.weight": np.ones((6, channels), np.float32), "classifier.1.bias": np.ones(6, np.float32)}
    path.write_bytes(writer.zipped(state))
    with pytest.raises(WeightsFileError, match=r"its head 'classifier\.1' is a dense layer.*include_top=False"):
        torch_file.read(path)
    trunk = {name: array for name, array in random_arrays().items() if not name.startswith("conv10/")}
    assert_equal(torch_file.read(path, trunk_only=True), trunk)


@pytest.mark.parametrize("value", [{"epoch": 3}, {"state_dict": 3}, {"model": {}}, [1.5], 2.5, {"model": {"a": 1.5}}])
def test_a_checkpoint_without_a_state_dict_says_what_to_save(writer, path, value):
    path.write_bytes(writer.zipped({}, pickle.dumps(value, protocol=2)))
    with pytest.raises(WeightsFileError, match=r"torch\.save\(model\.state_dict\(\), \"weights\.pth\"\)"):
        torch_file.read(path)


def test_a_pickled_module_says_what_to_save(writer, path, monkeypatch):
    module = types.ModuleType("torchvision.models.squeezenet")
    module.SqueezeNet = type("SqueezeNet", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", types.ModuleType("torchvision.models"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for protocol in (2, 4):
        path.write_bytes(writer.zipped({}, pickle.dumps(module.SqueezeNet(), protocol=protocol)))
        with pytest.raises(WeightsFileError, match=r"squeezenet SqueezeNet.*torch\.save\(model\.state_dict\(\)"):
            torch_file.read(path)


def torch_module(torch, arrays):
    """A module whose state dict has torchvision's names."""
    root = torch.nn.Module()
    for name, array in arrays.items():
        *modules, part = theirs(name).split(".")
        parent = root
        for module in modules:
            if module not in dict(parent.named_children()):
                parent.add_module(module, torch.nn.Module())
            parent = parent.get_submodule(module)
        tensor = torch.from_numpy(np.ascontiguousarray(oihw(array)))
        if name == "conv1/kernel":
            tensor = tensor.to(memory_format=torch.channels_last)
        parent.register_parameter(part, torch.nn.Parameter(tensor))
    return root


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch writes the file of this test; it is not needed to read it")


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_torch_saves(torch, path, zipped):
    arrays = random_arrays()
    module = torch_module(torch, arrays)
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=zipped)
    assert_equal(load(path), arrays)
    parameters = dict(module.named_parameters())
    parameters["features.0.weight"].written_by = "an optimizer"  # pickled with the parameter
    torch.save(parameters, path, _use_new_zipfile_serialization=zipped)
    assert_equal(load(path), arrays)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_reads_a_checkpoint_that_torch_saves(torch, path, zipped, protocol):
    arrays = {name: array.astype(ml_dtypes.bfloat16).astype(np.float32) for name, array in random_arrays().items()}
    module = torch.nn.DataParallel(torch_module(torch, arrays).to(torch.bfloat16))
    optimizer = torch.optim.Adam(module.parameters())
    sum(parameter.sum() for parameter in module.parameters()).backward()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 30)
    checkpoint = {
        **BESIDE,
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "best_acc1": torch.tensor(71.5),
        "generator": torch.get_rng_state(),
    }
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    assert_equal(load(path), arrays)


def test_a_module_that_torch_saves_says_what_to_save(torch, path):
    module = torch_module(torch, random_arrays())
    torch.save(module, path)
    with pytest.raises(WeightsFileError, match=r"torch\.save\(model\.state_dict\(\)"):
        torch_file.read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but many of its files are about
        torch.jit.script(torch.nn.Conv2d(3, 4, 3)).save(path)
    with pytest.raises(WeightsFileError, match=r"torch\.save\(model\.state_dict\(\)"):
        torch_file.read(path)


def structural(writer, arrays):
    state = state_dict(arrays)
    for write in (writer.zipped, writer.legacy):
        data = write(state)
        yield from truncations(data, 60)
        yield from (data + extra for extra in (b"\0", b"\xff" * 12, b"PK\5\6" + b"\0" * 17, data[: len(data) // 2]))
        yield from (write(state_dict(broken)) for broken in broken_arrays(arrays))
        yield write({**state, "features.0.weight": state["features.0.weight"].astype(np.int64)})
        yield write({**state, "features.1.weight": state["features.0.weight"]})
        yield write({**state, "features.0.squeeze.weight": state["features.0.weight"]})
        yield write({**state, "head.weight": state["features.0.weight"], "head.bias": state["features.0.bias"]})
        yield write({**state, "epoch": np.ones((), np.float32)})
    yield writer.zipped(state, byteorder="big")
    yield writer.legacy(state, little_endian=False)
    yield writer.legacy(state, keys=["0"])
    yield writer.legacy(state, keys=[str(i) for i in reversed(range(len(state)))])
    for edit in EDITS:
        yield writer.zipped(state, edit=edit)


EDITS = (
    lambda a: (a[0], 1, *a[2:]),
    lambda a: (a[0], -1, *a[2:]),
    lambda a: (a[0], 2**70, *a[2:]),
    lambda a: (a[0], True, *a[2:]),
    lambda a: (a[0], 0, (*a[2], 2), (*a[3], 1), *a[4:]),
    lambda a: (a[0], 0, (2**40, *a[2][1:]), *a[3:]),
    lambda a: (a[0], 0, (-4, *a[2][1:]), *a[3:]),
    lambda a: (a[0], 0, (0, *a[2][1:]), *a[3:]),
    lambda a: (a[0], 0, a[2], (a[3][0] + 1, *a[3][1:]), *a[4:]),
    lambda a: (a[0], 0, a[2], tuple(-stride for stride in a[3]), *a[4:]),
    lambda a: (a[0], 0, a[2], a[3][1:], *a[4:]),
    lambda a: (a[0], 0, (1.0,), (1,)),
    lambda a: (a[0], 0),
    lambda a: ("storage", *a[1:]),
)


@pytest.mark.parametrize("data", [np.float32([0.25, -2, 1]).tobytes(), b"\0\0\1\5conv1", pickle.dumps({"a": 1})])
def test_a_file_of_another_program_is_not_called_damaged(path, data):
    """For example, OpenVINO's .bin, TensorFlow's .ckpt, and a dict that pickle itself wrote."""
    path.write_bytes(data)
    with pytest.raises(WeightsFileError, match=r"not a file that torch\.save wrote"):
        torch_file.read(path)


def test_structural_damage_is_refused(writer, path):
    assert check_refused(path, structural(writer, random_arrays())) > 500


@pytest.mark.parametrize("kind", ["zipped", "legacy"])
def test_random_damage_is_refused_or_gives_finite_weights(writer, path, kind):
    data = getattr(writer, kind)(state_dict(random_arrays()))
    assert check_harmless(path, flips(data, 300, seed=4)) == 300


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_damage_to_the_pickle_is_refused_or_harmless(writer, path):
    state = state_dict(random_arrays())
    assert (
        check_harmless(path, (writer.zipped(state, copy) for copy in flips(writer.pickle(state), 300, seed=5))) == 300
    )


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_that_a_pickle_names_is_called(writer, path, protocol, monkeypatch):
    called = []
    monkeypatch.setattr(sys.modules[__name__], "trap", called.append, raising=False)
    for payload in (Evil(sys.modules[__name__].trap, 1), Evil(eval, "trap(1)"), {"features.0.weight": Evil(exec, "1")}):
        path.write_bytes(writer.zipped(state_dict(random_arrays()), pickle.dumps(payload, protocol=protocol)))
        with pytest.raises(WeightsFileError, match="refused"):
            torch_file.read(path)
    assert not called


@pytest.mark.parametrize(
    "opcodes",
    [
        b"ccollections\nOrderedDict\n(ios\nsystem\n.",
        b"\x80\x02]\x85\x85\x85R.",
        b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
        b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b".",
        b"\x80\x02K\x01K\x02.",
        b"\x80\x02t.",
        b"\x80\x02h\x07.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x80\x02}]K\x01s.",
        b"",
    ],
)
def test_hostile_pickles_are_refused_or_plain_values(opcodes):
    try:
        value = read_pickle("file.pth", io.BytesIO(opcodes))
    except WeightsFileError as error:
        assert "file.pth" in str(error)
    else:
        assert isinstance(value, tuple)


def test_declared_sizes_are_bounded_before_anything_is_allocated(writer, path):
    state = state_dict(random_arrays())
    huge = lambda a: (a[0], 0, (2**29,), (0,), *a[4:])  # noqa: E731
    path.write_bytes(writer.zipped(state, edit=huge))
    check_refused_in_little_memory(path)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\0" * (64 << 20))
    path.write_bytes(stream.getvalue())
    check_refused_in_little_memory(path)
    assert set(SHAPES) == set(random_arrays())


def test_an_archive_with_a_huge_directory_is_refused(path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for i in range(20_000):
            archive.writestr(f"net/{i:040}", b"")
    path.write_bytes(stream.getvalue())
    with pytest.raises(WeightsFileError, match="directory has"):
        torch_file.read(path)
