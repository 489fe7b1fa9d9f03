"""The rule behind squeezenet_saved_model."""

load(":run_python.bzl", "PYTHON_ATTRS", "run_python")

def _saved_model_impl(ctx):
    weights = [file for file in ctx.files.weights if not file.basename.endswith(".spec.json")]
    if len(weights) != 1:
        fail("weights must be one file, with or without its .spec.json, got %s" % ctx.files.weights)
    base_path = ctx.actions.declare_directory(ctx.label.name)
    arguments = ctx.actions.args()
    arguments.add(weights[0], format = "--model=%s")
    arguments.add(base_path.path, format = "--base_path=%s")
    arguments.add(ctx.attr.model_version, format = "--model_version=%s")
    for name in ["version", "bypass"]:
        if getattr(ctx.attr, name):
            arguments.add(getattr(ctx.attr, name), format = "--" + name + "=%s")
    if ctx.file.labels:
        arguments.add(ctx.file.labels, format = "--labels=%s")
    run_python(
        ctx,
        module = "export.export",
        arguments = arguments,
        inputs = ctx.files.weights + ctx.files.labels,
        outputs = [base_path],
        progress_message = "Exporting the SavedModel %s" % ctx.label,
    )
    return [DefaultInfo(files = depset([base_path]), runfiles = ctx.runfiles([base_path]))]

saved_model = rule(
    implementation = _saved_model_impl,
    attrs = dict(
        PYTHON_ATTRS,
        weights = attr.label(
            mandatory = True,
            allow_files = True,
            doc = "A file of weights, or a filegroup of it and its .spec.json.",
        ),
        version = attr.string(
            values = ["", "1.0", "1.1"],
            doc = "The architecture, if the weights do not say.",
        ),
        bypass = attr.string(
            values = ["", "simple", "complex"],
            doc = "The architecture, if the weights do not say.",
        ),
        labels = attr.label(
            allow_single_file = True,
            doc = "A text file with the name of a class on each line, instead of the model's own.",
        ),
        model_version = attr.string(
            mandatory = True,
            doc = "The served version, a positive integer: a string, as Bazel's integers end at 2147483647.",
        ),
    ),
    doc = "Makes a folder <name> with a SavedModel in <name>/<model_version>.",
)
