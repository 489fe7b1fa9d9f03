"""The site: its pages are complete, what is generated for it is right, and it opens from the disk without a network."""

import ast
import json
import subprocess
import sys

import pytest

from tests.test_docs import BLOCK, PAGES
from tools import build_site, docstrings

MODULE = '''"""A module."""

import dataclasses

__all__ = ["Good", "bad", "composed", "missing"]

_ARGUMENTS = """
    Args:
        x: A number.
"""


@dataclasses.dataclass
class Good:
    """Has everything.

    Args:
        x: A number.

    Raises:
        ValueError: x is negative.
    """

    x: int

    def __post_init__(self):
        if self.x < 0:
            raise ValueError

    def twice(self) -> int:
        """Twice the number."""
        return 2 * self.x

    def times(self, factor: int) -> int:
        """A product."""
        return factor * self.x

    def bare(self):
        pass


def bad(x: int, y: int = 0) -> int:
    """Lacks everything but x.

    Args:
        x: A number.
    """
    if y:
        raise ValueError
    return x


def composed(x: int) -> None:
    pass


composed.__doc__ = f"""Its docstring is composed.
{_ARGUMENTS}"""


def missing() -> None:
    """Not in the reference."""
'''


def test_the_docstrings_of_the_reference_are_complete():
    names = [name for page in build_site.REFERENCE for name in build_site.public_names(page)]
    assert list(docstrings.problems(names)) == []


def test_what_a_docstring_lacks_is_named(tmp_path):
    (tmp_path / "package_under_test.py").write_text(MODULE, "utf-8")
    names = [f"package_under_test.{name}" for name in ("Good", "bad", "composed")]
    assert list(docstrings.problems(names, ["package_under_test"], tmp_path)) == [
        "package_under_test.missing: not in the reference",
        "package_under_test.Good.times: Args lacks factor",
        "package_under_test.Good.times: Returns is missing",
        "package_under_test.Good.bare: no docstring",
        "package_under_test.bad: Args lacks y",
        "package_under_test.bad: Returns is missing",
        "package_under_test.bad: Raises is missing",
    ]


def test_flags_and_description_of_a_command():
    section = build_site.command_section("sqz-classify", "sqz_keras.cli.classify")
    assert section.startswith(
        "## sqz-classify\n\nClassifies images: prints the most probable classes of each.\n\n```text\n"
        "sqz-classify photo.jpg [other.png"
    )
    assert "\n| `--runtime` | `keras` | What runs the network. One of keras, litert, onnx. |" in section
    assert "\n| `--image` |  | Path of an image, like the arguments; repeat the flag for more images. |" in section
    assert "| `--helpxml`" not in section


def test_markdown_in_a_flag_is_text():
    flag = {"name": "a_b", "default": "", "meaning": "<x|y>: A *list* of\n<NAME>_s | more"}
    assert build_site.flag_row(flag) == r"| `--a_b` |  | A \*list\* of &lt;NAME&gt;\_s \| more One of x, y. |"


def test_what_the_guides_import_is_in_the_reference():
    blocks = [match[2] for page in PAGES for match in BLOCK.finditer(page.read_text("utf-8")) if match[1] == "python"]
    imports = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    imported = {f"{node.module}.{name.name}" for node in imports for name in node.names}
    ours = {name for name in imported if name.split(".")[0] in ("sqz_keras", "trainers", "export")}
    documented = {name for page in build_site.REFERENCE for name in build_site.public_names(page)}
    modules = {name.rpartition(".")[0] for name in documented}
    assert len(ours) > 10 and ours - documented - modules == set()


def test_the_contract_has_its_signatures_and_limits():
    page = build_site.contract_page()
    assert "| input | `image_bytes` | string | (batch,) |" in page and "| `MAX_BATCH_SIZE` | `32` |" in page


def test_an_executed_notebook_is_shown_while_its_cells_are_the_same(tmp_path):
    def write(name, source, outputs):
        cells = [{"cell_type": "code", "source": source, "outputs": outputs}]
        (tmp_path / name).write_text(json.dumps({"cells": cells}))
        return tmp_path / name

    notebook = write("a.ipynb", ["print(1)"], [])
    assert not build_site.is_copy(tmp_path / "none.ipynb", notebook)
    assert not build_site.is_copy(write("old.ipynb", ["print(2)"], []), notebook)
    assert build_site.is_copy(write("new.ipynb", "print(1)", [{"text": "1"}]), notebook)


def test_a_notebook_becomes_a_page(tmp_path):
    outputs = [
        {"output_type": "stream", "text": ["1\n"]},
        {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo=", "text/plain": ["<Figure>"]}},
        {"output_type": "display_data", "data": {"image/svg+xml": ["<svg/>"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["x = 1\n", "x"], "outputs": outputs},
    ]
    build_site.write_notebook(tmp_path / "a.md", {"cells": cells})
    assert (tmp_path / "a.md").read_text("utf-8") == (
        "# Title\ntext\n\n```python\nx = 1\nx\n```\n\n```text\n1\n```\n\n"
        "![Output of the cell above](a-1-1.png)\n\n![Output of the cell above](a-1-2.svg)\n"
    )
    assert (tmp_path / "a-1-1.png").read_bytes() == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "a-1-2.svg").read_bytes() == b"<svg/>"
    text = "[a](examples/a.ipynb) [all](examples) [up](../examples/) [far](https://x.org/a.ipynb)"
    assert build_site.within_the_site(text) == (
        "[a](examples/a.md) [all](examples/index.md) [up](../examples/index.md) [far](https://x.org/a.ipynb)"
    )


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.html", '<a href="https://x.org">x</a><img src="b.svg"><script src="../c.js"></script>', []),
        ("a.html", '<img alt="x" src="https://x.org/b.svg">', ["https://x.org/b.svg"]),
        ("a.html", "<script async src=//x.org/c.js></script>", ["//x.org/c.js"]),
        ("a.html", '<link rel="stylesheet" href="http://x.org/d.css">', ["http://x.org/d.css"]),
        ("a.css", 'a { background: url("https://x.org/e.png") } b { src: url(f.woff) }', ["https://x.org/e.png"]),
    ],
)
def test_assets_from_elsewhere_are_found(name, text, found, tmp_path):
    (tmp_path / name).write_text(text, "utf-8")
    assert build_site.assets_from_elsewhere(tmp_path / name) == found


@pytest.fixture(scope="module")
def site():
    assert build_site.main() == 0
    return build_site.SITE


@pytest.mark.large
def test_the_search_works_from_the_disk(site, browser):
    page = browser.open(f"file://{site}/html/index.html?q=codebook")
    page.wait("document.querySelectorAll('.md-search-result__item').length > 1")
    requests = [event["request"]["url"] for event in page.events("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith(("file:", "data:", "about:", "blob:"))] == []
    assert page.complaints() == []


@pytest.mark.large
@pytest.mark.parametrize("link", ["[x](missing.md)", "[x](results.md#missing)", "[x](missing.svg)"])
def test_a_broken_link_fails(site, link):
    page = site / "pages" / "docs" / "notes.md"
    before = page.read_text("utf-8")
    page.write_text(f"{before}\n{link}\n", "utf-8")
    try:
        command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site / "broken")]
        result = subprocess.run(command, cwd=build_site.ROOT, capture_output=True, text=True, check=False)
    finally:
        page.write_text(before, "utf-8")
    assert result.returncode == 1 and "missing" in result.stderr
