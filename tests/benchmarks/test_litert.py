"""The LiteRT benchmark runs, and prints its measurements."""

import keras
import numpy as np
from PIL import Image

from benchmarks import litert as litert_benchmark
from export.formats import single_file
from sqz_keras import Metaparameters, ModelSpec, Preprocessing
from sqz_keras.models.squeezenet import build, named_arrays


def test_it_prints_agreement_and_ratio(tmp_path, run_command, capsys):
    net = Metaparameters(num_fire_modules=1, base_e=8, stem_filters=4, stem_kernel=3, pool_after=(1,))
    spec = ModelSpec(None, metaparameters=net, classes=3, input_size=24, preprocessing=Preprocessing(resize_to=24))
    keras.utils.set_random_seed(1)  # XNNPACK refuses some random nets once they are quantised
    single_file.write("onnx", spec, named_arrays(build(spec)), tmp_path / "net.onnx")
    generator = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(generator.integers(0, 256, (24, 24, 3), np.uint8)).save(tmp_path / f"{number}.png")
    run_command(litert_benchmark, f"--model={tmp_path / 'net.onnx'}", f"--image_dir={tmp_path}", "--rounds=2")
    printed = dict(line.split("=")[:2] for line in capsys.readouterr().out.splitlines() if "=" in line)
    assert set(printed) == {"agreement", "unaccelerated ratio", "ratio"}
    assert 0 <= float(printed["agreement"].split()[0]) <= 1
    assert float(printed["ratio"].split()[0]) > 0
    assert printed["ratio"].endswith("control")
