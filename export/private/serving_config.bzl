"""The rule behind serving_config."""

load(":run_python.bzl", "PYTHON_ATTRS", "run_python")

_FILES = ["models.config", "batching.config", "monitoring.config"]

def _serving_config_impl(ctx):
    outputs = [ctx.actions.declare_file("%s/%s" % (ctx.label.name, name)) for name in _FILES]
    labels = ["%s=%s" % item for item in ctx.attr.version_labels.items()]
    arguments = ctx.actions.args()
    arguments.add(outputs[0].dirname, format = "--output_dir=%s")
    arguments.add(ctx.attr.model_name, format = "--model_name=%s")
    arguments.add(ctx.attr.base_path, format = "--base_path=%s")
    arguments.add_joined(ctx.attr.model_versions, join_with = ",", format_joined = "--model_versions=%s")
    arguments.add_joined(labels, join_with = ",", format_joined = "--version_labels=%s")
    sizes = [str(size) for size in ctx.attr.allowed_batch_sizes]
    arguments.add_joined(sizes, join_with = ",", format_joined = "--allowed_batch_sizes=%s")
    arguments.add(str(ctx.attr.batch_timeout_micros), format = "--batch_timeout_micros=%s")
    arguments.add(str(ctx.attr.max_enqueued_batches), format = "--max_enqueued_batches=%s")
    if ctx.attr.num_batch_threads:
        arguments.add(str(ctx.attr.num_batch_threads), format = "--num_batch_threads=%s")
    run_python(
        ctx,
        module = "export.serving_config",
        arguments = arguments,
        inputs = [],
        outputs = outputs,
        progress_message = "Writing the serving configuration %s" % ctx.label,
    )
    return [DefaultInfo(files = depset(outputs), runfiles = ctx.runfiles(outputs))]

serving_config_rule = rule(
    implementation = _serving_config_impl,
    attrs = dict(
        PYTHON_ATTRS,
        model_name = attr.string(mandatory = True, doc = "Name by which clients ask for the model."),
        base_path = attr.string(mandatory = True, doc = "Folder of the model's versions, as the server sees it."),
        model_versions = attr.string_list(doc = "Versions to load; if empty, the newest."),
        version_labels = attr.string_dict(doc = "Names of versions."),
        allowed_batch_sizes = attr.int_list(doc = "Ascending; if empty, those of the serving contract."),
        batch_timeout_micros = attr.int(doc = "How long a call waits for others."),
        max_enqueued_batches = attr.int(mandatory = True, doc = "Length of the queue."),
        num_batch_threads = attr.int(doc = "Batches computed at once; 0 for one per core."),
    ),
    doc = "Writes <name>/models.config, <name>/batching.config and <name>/monitoring.config.",
)
