"""What LiteRT files say to other programs, held against bytes that MediaPipe accepted, and against MediaPipe itself."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image
from tensorflow.lite.python import schema_py_generated as schema

from sqz_keras import get_record
from sqz_keras.runtimes import litert_file, litert_metadata
from sqz_keras.runtimes.run import run_litert
from tests.export.samples import random_arrays, small_spec
from tests.runtimes.nets import telling_arrays

GOLDEN = (
    "1c0000004d303031140010000c000000000008000000000000000400140000000c000000140000006801000005000000312e302e30000000"
    "01000000100000000c000c0000000000080004000c00000008000000700000000100000018000000000012000c0008000000000000000000"
    "00000400120000000800000034000000010000001000000000000a000c000800000007000a00000000000002040000000a0000006c616265"
    "6c732e74787400000d00000070726f626162696c69746965730000000100000014000000100018001400100000000c000800040010000000"
    "140000002c000000700000008400000094000000c8ffffff080000000c00000001000000000000000100000000007f43010000000c000000"
    "08000c000b00040008000000100000000000000108000c000800040008000000080000000c000000010000000000803f0100000000000000"
    "08000a0009000400080000000c000000000206000800070006000000000000010d00000052474220696e20302e2e32353500000006000000"
    "696d6167657300000a00000053717565657a654e65740000"
)


def test_the_metadata_is_what_mediapipe_accepted():
    data = litert_file.convert(small_spec(), random_arrays(small_spec()))
    model = schema.ModelT.InitFromPackedBuf(data)
    entries = {entry.name.decode(): bytes(model.buffers[entry.buffer].data) for entry in model.metadata}
    assert list(entries) == ["model_spec", "TFLITE_METADATA"]
    assert entries["TFLITE_METADATA"].hex() == GOLDEN


@pytest.mark.parametrize("float16", [False, True])
def test_the_names_of_the_classes_are_in_an_archive_at_the_end(float16):
    spec = small_spec(labels=("a", "é", "a b"), classes=3)
    data = litert_file.convert(spec, random_arrays(spec), float16=float16)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["labels.txt"]
        (member,) = archive.infolist()
        assert member.compress_type == zipfile.ZIP_STORED and archive.read(member).decode() == "a\né\na b\n"


def test_imagenets_classes_have_readable_names():
    archive = zipfile.ZipFile(io.BytesIO(litert_metadata.labels_archive(get_record("squeezenet1.1_authors").spec)))
    names = archive.read("labels.txt").decode().splitlines()
    assert len(names) == 1000 and names[0] == "tench"


def test_mediapipe_classifies_with_the_file(tmp_path):
    tasks = pytest.importorskip("mediapipe.tasks.python", reason="MediaPipe is no dependency")
    import mediapipe
    from mediapipe.tasks.python import vision

    spec = small_spec(labels=("a", "é", "a b"), classes=3)
    arrays = telling_arrays(spec)
    data = litert_file.convert(spec, arrays)
    (tmp_path / "net.tflite").write_bytes(data)
    pixels = np.random.default_rng(0).integers(0, 256, (spec.input_size, spec.input_size, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    options = vision.ImageClassifierOptions(tasks.BaseOptions(model_asset_path=str(tmp_path / "net.tflite")))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        result = classifier.classify(mediapipe.Image.create_from_file(str(tmp_path / "image.png")))
    scores = {category.category_name: category.score for category in result.classifications[0].categories}
    (expected,) = run_litert(data, pixels[None].astype(np.float32))
    assert scores == pytest.approx(dict(zip(spec.labels, expected.tolist(), strict=True)), abs=1e-5)
