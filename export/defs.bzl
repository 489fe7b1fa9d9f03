"""Bazel rules for SqueezeNet under TensorFlow Serving: the model, its configuration, and both in a layer of an image."""

load("//export/private:saved_model.bzl", "saved_model")
load("//export/private:serving_config.bzl", _serving_config = "serving_config_rule")
load("//export/private:serving_tar.bzl", _serving_tar = "serving_tar")

serving_tar = _serving_tar

def squeezenet_saved_model(
        name,
        weights,
        version = None,
        bypass = None,
        labels = None,
        model_version = 1,
        testonly = None,
        tags = None,
        visibility = None):
    """Exports a model as `sqz-export` does.

    Args:
      name: of the target, and of the folder that it creates: a base path for TensorFlow Serving that holds one folder,
        `<model_version>`. The same inputs give the same bytes.
      weights: label of a file of weights that `sqz-export --model` takes, such as a `.sqz` or `.weights.h5`; or of a
        filegroup of that file and its `.spec.json`.
      version: "1.0" or "1.1", the architecture, if the weights do not say.
      bypass: "simple" or "complex", the architecture, if the weights do not say.
      labels: label of a text file with one class name per line, instead of the model's own.
      model_version: the served version, a positive integer or a string of its digits. Beyond 2147483647, Bazel takes
        only the string.
      testonly: as for all rules.
      tags: as for all rules.
      visibility: as for all rules.
    """
    saved_model(
        name = name,
        weights = weights,
        version = version,
        bypass = bypass,
        labels = labels,
        model_version = str(model_version),
        testonly = testonly,
        tags = tags,
        visibility = visibility,
    )

def serving_config(
        name,
        model_name = "squeezenet",
        base_path = None,
        model_versions = [],
        version_labels = {},
        allowed_batch_sizes = [],
        batch_timeout_micros = 0,
        max_enqueued_batches = 100,
        num_batch_threads = 0,
        testonly = None,
        tags = None,
        visibility = None):
    """Writes `<name>/models.config`, `<name>/batching.config` and `<name>/monitoring.config`.

    Args:
      name: of the target, and of the files' folder.
      model_name: by which clients ask for the model.
      base_path: the folder of the model's versions as the server sees it; `/models/<model_name>` by default.
      model_versions: the versions to load; none for the newest.
      version_labels: names of versions, as `{"stable": 1}`. A server starts with labels only if it is given
        `--allow_version_labels_for_unavailable_models`.
      allowed_batch_sizes: ascending; the serving contract's by default.
      batch_timeout_micros: how long a call waits for others to join its batch.
      max_enqueued_batches: the length of the queue; calls beyond it are refused.
      num_batch_threads: how many batches are computed at once; 0 for the server's default, one per core.
      testonly: as for all rules.
      tags: as for all rules.
      visibility: as for all rules.
    """
    _serving_config(
        name = name,
        model_name = model_name,
        base_path = base_path or "/models/" + model_name,
        model_versions = [str(version) for version in model_versions],
        version_labels = {label: str(version) for label, version in version_labels.items()},
        allowed_batch_sizes = allowed_batch_sizes,
        batch_timeout_micros = batch_timeout_micros,
        max_enqueued_batches = max_enqueued_batches,
        num_batch_threads = num_batch_threads,
        testonly = testonly,
        tags = tags,
        visibility = visibility,
    )
