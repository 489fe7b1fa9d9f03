"""Writes the model card of an export."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

from export.formats.config import LITERT_INT8, SAVED_MODEL, FileConfig, SavedModelConfig
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights import model_card

_SERVE = """
```sh
sqz-serve --base_path=.
sqz-predict photo.jpg
```

TensorFlow Serving loads this folder too, as a model's base path. The signature `serve_bytes` takes JPEG and PNG files.
"""
_KERAS = """
```python
import sqz_keras

model = sqz_keras.load("{file}")
```

`sqz_keras.preprocess_input` makes its inputs, in the mode that the table names.
"""
_INPUT = """
It takes `images`, float32 (batch, {size}, {size}, 3), RGB in 0..255: pictures, scaled and cropped as the table
says. The order of the colours and their means are inside.
"""
_ONNX = """
```python
import onnxruntime

(probabilities,) = onnxruntime.InferenceSession("{file}").run(None, {{"images": images}})
```
"""
_LITERT = """
```python
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter("{file}")
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
interpreter.invoke()
probabilities = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
```
"""


def card_path(config: SavedModelConfig | FileConfig) -> pathlib.Path:
    """Where the card goes: into the folder of all versions, or beside the file."""
    folder = config.base_path if isinstance(config, SavedModelConfig) else os.path.dirname(config.output)
    return pathlib.Path(folder, model_card.NAME)


def write(config: SavedModelConfig | FileConfig, spec: ModelSpec, files: Mapping[str, int]) -> None:
    """Writes the card.

    Args:
        config: What was exported.
        spec: Describes the model.
        files: The size in bytes of each file, or of the version's folder, by its name.
    """
    record = model_card.find_record(config.model, spec)
    # The 8-bit model's answers differ from those of the model that was evaluated.
    evaluation = None if config.format == LITERT_INT8 else model_card.find_evaluation(config.model, record)
    loading = _loading(config.format).format(file=next(iter(files)), size=spec.input_size)
    model_card.write_card(card_path(config), model_card.model_card(spec, files, loading, record, evaluation))


def _loading(format: str) -> str:
    if format == SAVED_MODEL:
        return _SERVE
    if format == "keras":
        return _KERAS
    return (_ONNX if format == "onnx" else _LITERT) + _INPUT
