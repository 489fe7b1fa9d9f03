"""The rule serving_tar."""

load(":run_python.bzl", "PYTHON_ATTRS", "run_python")

def _serving_tar_impl(ctx):
    output = ctx.actions.declare_file(ctx.label.name + ".tar")
    arguments = ctx.actions.args()
    arguments.add(output, format = "--output=%s")
    for target, name in ctx.attr.models.items():
        for file in target[DefaultInfo].files.to_list():
            arguments.add("--entry=models/%s=%s" % (name, file.path))
    for file in ctx.files.configs:
        arguments.add("--entry=models/%s=%s" % (file.basename, file.path))
    run_python(
        ctx,
        module = "export.serving_tar",
        arguments = arguments,
        inputs = ctx.files.models + ctx.files.configs,
        outputs = [output],
        progress_message = "Packing %s" % ctx.label,
    )
    return [DefaultInfo(files = depset([output]))]

serving_tar = rule(
    implementation = _serving_tar_impl,
    attrs = dict(
        PYTHON_ATTRS,
        models = attr.label_keyed_string_dict(
            mandatory = True,
            allow_empty = False,
            doc = "squeezenet_saved_model targets, each with the name under which it is served: its versions come " +
                  "to /models/<name>/<model_version>. Several targets may have one name.",
        ),
        configs = attr.label_list(
            allow_files = True,
            doc = "serving_config targets, or files: they come to /models.",
        ),
    ),
    doc = "Packs <name>.tar, a layer for an image of TensorFlow Serving. Names are sorted, times and owners are 0: " +
          "the same models give the same bytes.",
)
