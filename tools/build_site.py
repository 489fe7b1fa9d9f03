"""Builds the documentation site: `make docs`, or `python -m tools.build_site`.

The pages are gathered in .build/site/pages at the paths that they have in the repository, so that links lead to the
same files in both. Pages of the reference are generated: from the docstrings of `REFERENCE`, and from the flags of the
commands. MkDocs then renders them as mkdocs.yml says, and any warning ends the build.
"""

from __future__ import annotations

import html
import importlib
import inspect
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from xml.etree import ElementTree

import griffe

ROOT = pathlib.Path(__file__).resolve().parents[1]
SITE = ROOT / ".build" / "site"

# A page of the reference -> its title, and what is public on it: by the name that users import it by.
REFERENCE = {
    "models": (
        "Models",
        "sqz_keras.SqueezeNet",
        "sqz_keras.SqueezeNetV1_1",
        "sqz_keras.SqueezeNetSimpleBypass",
        "sqz_keras.SqueezeNetComplexBypass",
        "sqz_keras.squeezenet_from_metaparameters",
        "sqz_keras.Metaparameters",
        "sqz_keras.load",
    ),
    "weights": (
        "Weights",
        "sqz_keras.resolve_model",
        "sqz_keras.get_record",
        "sqz_keras.list_records",
        "sqz_keras.Record",
        "sqz_keras.ModelSpec",
        "sqz_keras.Preprocessing",
    ),
    "pictures": (
        "Pictures and answers",
        "sqz_keras.preprocess_input",
        "sqz_keras.prepare_images",
        "sqz_keras.decode_predictions",
        "sqz_keras.class_map",
        "sqz_keras.overlay",
        "sqz_keras.images.files.find_images",
        "sqz_keras.images.files.read_image",
        "sqz_keras.images.preprocessing.prepare_image",
        "sqz_keras.images.preprocessing.resize_and_crop",
    ),
    "compression": (
        "Compression and files",
        "sqz_keras.codec.encode",
        "sqz_keras.codec.decode",
        "sqz_keras.codec.describe",
        "sqz_keras.weights.sqz.header",
        "sqz_keras.weights.sqz.encode",
        "sqz_keras.weights.sqz.read_model",
        "sqz_keras.compression.kmeans.kmeans",
        "sqz_keras.compression.quantize.quantize",
        "sqz_keras.compression.tfmot_stages.prune",
        "sqz_keras.compression.tfmot_stages.cluster",
        "sqz_keras.compression.tfmot_stages.finetune",
        "sqz_keras.compression.tf_keras_bridge.to_tf_keras",
        "sqz_keras.compression.tf_keras_bridge.to_keras",
        "sqz_keras.runtimes.receive.write_received",
        "sqz_keras.runtimes.run.run_litert",
        "sqz_keras.runtimes.onnx_file.convert",
    ),
    "training": (
        "Training",
        "trainers.configs.load_config",
        "trainers.training.loop.train_and_evaluate",
        "trainers.training.config.TrainConfig",
    ),
    "serving": (
        "Serving",
        "export.formats.saved_model.export_saved_model",
        "export.client.client.Client",
        "export.client.async_client.AsyncClient",
        "export.client.exchange.Prediction",
        "export.client.connection.ServingError",
        "export.server.model_server.ssl_config",
    ),
    "hub": (
        "KerasHub",
        "sqz_keras.hub.SqueezeNetBackbone",
        "sqz_keras.hub.SqueezeNetImageClassifier",
        "sqz_keras.hub.SqueezeNetImageClassifierPreprocessor",
        "sqz_keras.hub.SqueezeNetImageConverter",
    ),
}


def main() -> int:
    """Gathers the pages and renders them; returns MkDocs' exit status."""
    pages = SITE / "pages"
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages / "docs")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, pages)
    write(pages / "reference" / "commands.md", commands_page())
    for name, (title, *objects) in REFERENCE.items():
        write(pages / "reference" / f"{name}.md", "\n\n".join([f"# {title}", *(f"::: {path}" for path in objects)]))
    notebooks = sorted((ROOT / "examples").glob("*.ipynb"))
    for path in notebooks:
        write(pages / "examples" / f"{path.stem}.md", notebook_page(json.loads(path.read_text("utf-8"))))
    write(pages / "examples" / "index.md", notebooks_page([path.stem for path in notebooks]))
    for path in pages.rglob("*.md"):
        path.write_text(within_the_site(path.read_text("utf-8")), "utf-8")
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run([sys.executable, "-m", "mkdocs", "build"], cwd=ROOT, env=env, check=False).returncode


def write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", "utf-8")


def within_the_site(text: str) -> str:
    """A page with its links to notebooks, and to their folder, as links to the pages made of them."""
    text = re.sub(r"(\]\((?!https?:)[^)\s]*)\.ipynb\)", r"\1.md)", text)
    return re.sub(r"(\]\((?:\.\./)*examples)/?\)", r"\1/index.md)", text)


def commands() -> dict[str, str]:
    """The commands of the project, as one types them -> their modules."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    modules = {name: entry.partition(":")[0] for name, entry in scripts.items()}
    return modules | {f"python -m {module}": module for module in ("export.serving_config", "export.serving_tar")}


def commands_page() -> str:
    return "\n\n".join(["# Commands", *(command_section(*command) for command in commands().items())])


def command_section(command: str, module: str) -> str:
    """What `--help` says of a command: its description, and a table of its flags."""
    program = f"import sys; sys.argv = ['{command}', '--helpxml']; from {module} import run; run()"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    xml = ElementTree.fromstring(result.stdout)
    flags = [{part.tag: part.text or "" for part in flag} for flag in xml.iter("flag")]
    rows = [flag_row(flag) for flag in sorted(flags, key=lambda flag: flag["name"]) if flag.get("key") == "yes"]
    head = "| flag | default | meaning |\n|---|---|---|"
    return "\n\n".join([f"## {command}", *usage_blocks(xml.findtext("usage")), "\n".join([head, *rows])])


def usage_blocks(usage: str) -> Iterator[str]:
    """The paragraphs of a description; those that begin with a command or have indented lines are blocks of code."""
    for paragraph in usage.strip().split("\n\n"):
        is_code = paragraph.startswith(("sqz-", "python -m")) or "\n " in paragraph
        yield f"```text\n{paragraph}\n```" if is_code else literal(paragraph)


def flag_row(flag: dict[str, str]) -> str:
    """A row of the table; absl puts the values of an enumeration before its meaning, and a remark after a list's."""
    values, meaning = re.fullmatch(
        r"(?:<(.*?)>: )?(.*?)(?:;\s+repeat this option.*)?", flag["meaning"], re.DOTALL
    ).groups()
    default = f"`{flag['default']}`" if flag["default"] else ""
    meaning = " ".join(meaning.split()) + (f" One of {values.replace('|', ', ')}." if values else "")
    return f"| `--{flag['name']}` | {default} | {literal(meaning)} |"


def literal(text: str) -> str:
    """Text in which no character has a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]|])", r"\\\1", html.escape(text, quote=False))


def notebooks_page(names: list[str]) -> str:
    return "\n".join(["# Notebooks", "", *(f"- [{name}]({name}.md)" for name in names)])


def notebook_page(notebook: dict) -> str:
    """A notebook's cells as Markdown."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells)


class Docstrings(griffe.Extension):
    """Gives mkdocstrings, which reads the source alone, the docstrings that are composed when a module is imported."""

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        del kwargs
        if pkg.name != "sqz_keras":
            return
        for function in pkg["models.squeezenet"].functions.values():
            if function.is_public and not function.docstring:
                text = inspect.getdoc(getattr(importlib.import_module(function.module.path), function.name))
                function.docstring = griffe.Docstring(text, parent=function)


if __name__ == "__main__":
    sys.exit(main())
