"""Builds the documentation site: `make docs`, or `python -m tools.build_site`.

The pages are gathered in .build/site/pages at the paths that they have in the repository, so that links lead to the
same files in both. The reference is generated from the docstrings of the names in `REFERENCE`, from the flags of the
commands and from the serving contract. MkDocs then renders the pages as mkdocs.yml says; any warning ends the build.
"""

from __future__ import annotations

import base64
import html
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

from export import contract
from tools import docstrings

ROOT = pathlib.Path(__file__).resolve().parents[1]
SITE = ROOT / ".build" / "site"
EXECUTED = ROOT / ".build" / "notebooks"  # copies with outputs, left by the tests of the notebooks

PICTURES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}  # outputs of notebooks -> suffixes

# A page of the reference -> its title, and its names by the module that users import them from.
REFERENCE = {
    "models": (
        "Models",
        {
            "sqz_keras": "SqueezeNet SqueezeNetV1_1 SqueezeNetSimpleBypass SqueezeNetComplexBypass "
            "squeezenet_from_metaparameters Metaparameters load"
        },
    ),
    "weights": (
        "Weights",
        {"sqz_keras": "resolve_model get_record list_records Record ModelSpec Preprocessing"},
    ),
    "pictures": (
        "Pictures and answers",
        {
            "sqz_keras": "preprocess_input prepare_images decode_predictions class_map overlay",
            "sqz_keras.images.files": "find_images read_image",
            "sqz_keras.images.preprocessing": "prepare_image resize_and_crop",
        },
    ),
    "compression": (
        "Compression and files",
        {
            "sqz_keras.weights.sqz": "header encode read_model",
            "sqz_keras.compression.kmeans": "kmeans",
            "sqz_keras.compression.quantize": "quantize",
            "sqz_keras.compression.tfmot_stages": "prune cluster finetune",
            "sqz_keras.compression.tf_keras_bridge": "to_tf_keras to_keras",
            "sqz_keras.files": "write_json",
            "sqz_keras.runtimes.receive": "write_received",
            "sqz_keras.runtimes.run": "run_litert",
            "sqz_keras.runtimes.onnx_file": "convert",
        },
    ),
    "codec": (
        "The codec",
        {
            "sqz_keras.codec": "encode decode describe outline Contents Layout ArrayLayout Outline Section SqzError "
            "BaseFileError ChecksumError CodebookError HeaderError HuffmanError MagicError PaddingError PositionError "
            "SectionError ShapeError StreamError TableError TooLargeError TrailingBytesError TruncatedError "
            "VersionError"
        },
    ),
    "training": (
        "Training",
        {
            "trainers.configs": "load_config",
            "trainers.training.loop": "train_and_evaluate",
            "trainers.training.config": "TrainConfig",
        },
    ),
    "serving": (
        "Serving",
        {
            "export.formats.saved_model": "export_saved_model",
            "export.client.client": "Client",
            "export.client.async_client": "AsyncClient",
            "export.client.exchange": "Prediction",
            "export.client.connection": "ServingError",
            "export.server.model_server": "ssl_config",
        },
    ),
    "hub": (
        "KerasHub",
        {
            "sqz_keras.hub": "SqueezeNetImageClassifier SqueezeNetBackbone SqueezeNetImageClassifierPreprocessor "
            "SqueezeNetImageConverter"
        },
    ),
}


def main() -> int:
    """Checks the docstrings, gathers the pages and renders them; returns the exit status."""
    missing = list(docstrings.problems(path for page in REFERENCE for path in public_names(page)))
    if missing:
        print("\n".join(missing), file=sys.stderr)
        return 1
    pages = SITE / "pages"
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages / "docs")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, pages)
    sections = (command_section(*command) for command in commands().items())
    write(pages / "reference" / "commands.md", "\n\n".join(["# Commands", *sections]))
    write(pages / "reference" / "contract.md", contract_page())
    for name, (title, _) in REFERENCE.items():
        blocks = [f"# {title}", *(f"::: {path}" for path in public_names(name))]
        write(pages / "reference" / f"{name}.md", "\n\n".join(blocks))
    notebooks = sorted((ROOT / "examples").glob("*.ipynb"))
    for path in notebooks:
        shown = EXECUTED / path.name if is_copy(EXECUTED / path.name, path) else path
        write_notebook(pages / "examples" / f"{path.stem}.md", json.loads(shown.read_text("utf-8")))
    links = (f"- [{path.stem}]({path.stem}.md)" for path in notebooks)
    write(pages / "examples" / "index.md", "\n".join(["# Notebooks", "", *links]))
    for path in pages.rglob("*.md"):
        path.write_text(within_the_site(path.read_text("utf-8")), "utf-8")
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    status = subprocess.run([sys.executable, "-m", "mkdocs", "build"], cwd=ROOT, env=env, check=False).returncode
    if status:
        return status
    assets = [
        f"{path}: {asset}" for path in sorted((SITE / "html").rglob("*.*")) for asset in assets_from_elsewhere(path)
    ]
    print("\n".join(assets) or f"Open {(SITE / 'html' / 'index.html').relative_to(ROOT)}.")
    return 1 if assets else 0


def assets_from_elsewhere(path: pathlib.Path) -> list[str]:
    """What a page or a style sheet loads from other hosts; links that people follow do not count."""
    if path.suffix == ".css":
        return re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", path.read_text("utf-8"))
    if path.suffix == ".html":
        return re.findall(
            r"<(?!a\b|link rel=\"canonical\")[^>]*?\b(?:src|href|data|poster|srcset)=[\"']?((?:https?:)?//[^\"'\s>]+)",
            path.read_text("utf-8"),
        )
    return []


def public_names(page: str) -> list[str]:
    """The full names on a page of the reference."""
    return [f"{module}.{name}" for module, names in REFERENCE[page][1].items() for name in names.split()]


def write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", "utf-8")


def within_the_site(text: str) -> str:
    """A page whose links to notebooks, and to their folder, lead to the pages made from them."""
    text = re.sub(r"(\]\((?!https?:)[^)\s]*)\.ipynb\)", r"\1.md)", text)
    return re.sub(r"(\]\((?:\.\./)*examples)/?\)", r"\1/index.md)", text)


def commands() -> dict[str, str]:
    """The commands of the project, as users type them -> their modules."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    modules = {name: entry.partition(":")[0] for name, entry in scripts.items()}
    return modules | {f"python -m {module}": module for module in ("export.serving_config", "export.serving_tar")}


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


def contract_page() -> str:
    """What `export/contract.py` says: the tensors of each signature, and the constants."""
    blocks = [
        "# Serving contract",
        "The names, types and limits of `export/contract.py`, which server and clients share.",
    ]
    for signature in contract.EXPORTED:
        tensors = [("input", signature.input), *(("output", tensor) for tensor in signature.outputs)]
        rows = [f"| {side} | `{t.name}` | {t.dtype} | {shape(t)} |" for side, t in tensors]
        blocks += [f"## {signature.name}", "\n".join(["| | name | dtype | shape |", "|---|---|---|---|", *rows])]
    values = {name: value for name, value in vars(contract).items() if isinstance(value, str | int | tuple)}
    rows = [f"| `{name}` | `{value!r}` |" for name, value in values.items() if name.isupper() and name != "EXPORTED"]
    blocks += ["## Constants", "\n".join(["| name | value |", "|---|---|", *rows])]
    blocks.append("[Export](../docs/export.md) describes the tensors.")
    return "\n\n".join(blocks)


def shape(tensor: contract.Tensor) -> str:
    return str(tensor.shape).replace("'", "")


def literal(text: str) -> str:
    """The text, escaped so that no character has a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]|])", r"\\\1", html.escape(text, quote=False))


def is_copy(executed: pathlib.Path, notebook: pathlib.Path) -> bool:
    """Whether the executed notebook has the same cells as `notebook`."""
    if not executed.exists():
        return False
    ours, theirs = (json.loads(path.read_text("utf-8"))["cells"] for path in (notebook, executed))
    return ["".join(cell["source"]) for cell in ours] == ["".join(cell["source"]) for cell in theirs]


def write_notebook(page: pathlib.Path, notebook: dict) -> None:
    """Writes a notebook's cells and their outputs, if any, as Markdown; pictures become files beside the page."""
    blocks = []
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        blocks.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for index, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            text = "".join(output.get("text", data.get("text/plain", []))).rstrip()
            kind = next((kind for kind in PICTURES if kind in data), None)
            if kind:
                picture = page.with_name(f"{page.stem}-{number}-{index}.{PICTURES[kind]}")
                picture.parent.mkdir(parents=True, exist_ok=True)
                content = "".join(data[kind])
                picture.write_bytes(content.encode() if kind == "image/svg+xml" else base64.b64decode(content))
                blocks.append(f"![Output of the cell above]({picture.name})")
            elif text:
                blocks.append(f"```text\n{text}\n```")
    write(page, "\n\n".join(blocks))


if __name__ == "__main__":
    sys.exit(main())
