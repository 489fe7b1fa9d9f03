"""Exports a model: as a SavedModel that TensorFlow Serving, or sqz-serve, loads, or as one file for other runtimes.

sqz-export --base_path=DIR [--model=imagenet] [--model_version=auto] [--keep_versions=N] [--precision=bfloat16]
    writes DIR/<model_version>: the network with its preprocessing, taking float images (signatures serving_default and
    features), encoded JPEG and PNG files (serve_bytes) or tf.train.Examples with one (classify). It appears whole or
    not at all, a version is never overwritten, and the same model gives the same bytes
sqz-export --format=litert|litert_float16|onnx|keras --output=FILE [--model=imagenet]
    writes one file, and FILE's description beside it
sqz-export --format=litert_int8 --output=FILE --calibration_dir=DIR
    writes the same in 8 bits, calibrated on one half of the unlabelled images and compared with Keras on the other
sqz-export --verify=DIR/<model_version>
    checks that a version is still what was exported, and answers as Keras does
"""

from __future__ import annotations

from absl import flags

from export import contract
from export.formats import config
from export.formats.run import run_export
from sqz_keras import command


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("labels", None, "Text file with one class name per line, instead of the model's own.")
    flags.DEFINE_enum("format", config.SAVED_MODEL, list(config.FORMATS), "What to write.")
    flags.DEFINE_string("base_path", None, "Folder of the served model, with one folder per version.")
    flags.DEFINE_string(
        "model_version", config.SavedModelConfig.model_version, "A positive integer; auto: the newest plus 1."
    )
    flags.DEFINE_integer("keep_versions", 0, "How many of the newest versions to keep; 0 keeps all.", lower_bound=0)
    flags.DEFINE_enum("precision", contract.PRECISIONS[0], list(contract.PRECISIONS), "What a SavedModel computes in.")
    flags.DEFINE_string(
        "output", None, "The file to write, for every --format but saved_model; an older one is replaced."
    )
    flags.DEFINE_string("calibration_dir", None, "Folder of unlabelled images, at any depth, for litert_int8.")
    images = config.CalibratedFileConfig.calibration_images
    flags.DEFINE_integer("calibration_images", images, "How many of them to use, at most.", lower_bound=2)
    flags.DEFINE_boolean("card", False, "Also write a model card: README.md in --base_path, or beside --output.")
    flags.DEFINE_string("verify", None, "A version's folder to check; nothing is written.")


def main(argv) -> None:
    del argv
    values = flags.FLAGS.flag_values_dict()
    given = [name for name in values if flags.FLAGS[name].present]
    print(run_export(config.choose(values, given)))


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
