"""What every Keras backend is asked to compute, in a process of its own: `python -m tests.models.answers FOLDER`.

FOLDER holds `inputs.npy`, the weights of `BUILDERS` and `NETS`, `importers/` and `photos/`. The answers are
written to `FOLDER/<backend>.npz`.
"""

import pathlib
import sys

import keras
import numpy as np

from sqz_keras import (
    Metaparameters,
    ModelSpec,
    SqueezeNet,
    SqueezeNetComplexBypass,
    SqueezeNetSimpleBypass,
    SqueezeNetV1_1,
    decode_predictions,
    load,
    prepare_images,
    preprocess_input,
    squeezenet_from_metaparameters,
)
from sqz_keras.images.files import read_image
from sqz_keras.models.squeezenet import named_arrays

SMALL = Metaparameters(base_e=8, incr_e=8, num_fire_modules=3, stem_filters=8, stem_kernel=3, pool_after=(1, 3))
BUILDERS = {
    "v1_0": (SqueezeNet, ModelSpec()),
    "v1_1": (SqueezeNetV1_1, ModelSpec("1.1")),
    "simple": (SqueezeNetSimpleBypass, ModelSpec(bypass="simple")),
    "complex": (SqueezeNetComplexBypass, ModelSpec(bypass="complex")),
}
# One network per bypass, small, for `squeezenet_from_metaparameters` and the commands.
NETS = {name: ModelSpec(None, name or None, SMALL, classes=10, input_size=35) for name in ("", "simple", "complex")}


def answer(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Runs everything that every backend can do, and returns the results by name."""
    inputs = np.load(folder / "inputs.npy")
    answers = {}

    def run(model, images):
        return np.asarray(model.predict_on_batch(images))

    for name, (builder, _) in BUILDERS.items():
        model = builder((64, 64, 3), weights=folder / f"{name}.sqz", classifier_activation=None)
        answers[f"builder {name}"] = run(model, inputs)
    for name in NETS:
        weights = folder / f"net{name}.sqz"
        options = {"weights": weights, "classes": 10, "classifier_activation": None, "bypass": name or None}
        answers[f"metaparameters {name}"] = run(squeezenet_from_metaparameters(SMALL, (64, 64, 3), **options), inputs)
        keras.config.set_image_data_format("channels_first")
        first = squeezenet_from_metaparameters(SMALL, (3, 64, 64), **options)
        answers[f"channels first {name}"] = run(first, np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)))
        keras.config.set_image_data_format("channels_last")
    for path in sorted((folder / "importers").iterdir()):
        if not path.name.endswith(".spec.json"):
            arrays = named_arrays(load(path))
            answers[f"importer {path.name}"] = np.concatenate([array.ravel() for array in arrays.values()])
    answers["trunk"] = run(SqueezeNetV1_1((64, 64, 3), False, folder / "v1_1.sqz", pooling="avg"), inputs)

    photos = [read_image(path)[None] for path in sorted((folder / "photos").iterdir())]
    spec = ModelSpec()
    prepared = np.concatenate([keras.ops.convert_to_numpy(prepare_images(photo, spec)) for photo in photos])
    answers["prepared"] = prepared
    tensor = preprocess_input(keras.ops.convert_to_tensor(inputs), mode="torch")
    answers["preprocessed tensor"] = keras.ops.convert_to_numpy(tensor)
    authors = run(SqueezeNet(weights="imagenet"), prepared)
    answers["imagenet"] = authors
    assert len(decode_predictions(authors)[0]) == 5
    return answers


def fit(folder: pathlib.Path) -> None:
    """Trains a network with Keras's own loop."""
    inputs = np.load(folder / "inputs.npy")
    model = squeezenet_from_metaparameters(SMALL, (64, 64, 3), classes=10, weights=folder / "net.sqz")
    before = named_arrays(model)
    model.compile("sgd", "mse")
    model.fit(inputs, np.eye(10)[: len(inputs)], verbose=0)
    assert not np.array_equal(before["conv10/kernel"], named_arrays(model)["conv10/kernel"])


if __name__ == "__main__":
    backend = keras.backend.backend()
    results = answer(pathlib.Path(sys.argv[1]))
    if backend != "openvino":
        fit(pathlib.Path(sys.argv[1]))
    others = {"tensorflow", "jax", "torch", "openvino"} - {backend}
    assert not others & {name for name, module in sys.modules.items() if module is not None}
    np.savez(pathlib.Path(sys.argv[1], backend), **results)
