"""The notebooks run from the first cell to the last, in a folder with photos/, and have no outputs in git."""

import pathlib
import re
import shutil

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebooks need the extra `test`")

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES, EXECUTED = ROOT / "examples", ROOT / ".build" / "notebooks"  # `make docs` shows the executed ones
NAMES = ["quickstart", "transfer", "shrink", "family"]
KINDS, PICTURES = ("accordion", "elephant", "sunflower"), 16  # of photos/
SECONDS = 300  # for a cell that hangs; on two cores a whole notebook takes less than 60


def read(name):
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def test_every_notebook_is_run_here():
    assert sorted(path.stem for path in EXAMPLES.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short_and_has_no_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and len(notebook.cells) <= 20
    assert [cell.id for cell in code if cell.outputs or cell.execution_count is not None] == []


@pytest.fixture(scope="module")
def folder(test_data, cached_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    for kind in KINDS:
        (folder / "photos" / kind).mkdir(parents=True)
        for path in sorted((test_data / "images" / "caltech101" / kind).iterdir())[:PICTURES]:
            shutil.copy(path, folder / "photos" / kind)
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    """A function that runs a notebook as Jupyter does; it returns what the cells printed and how many pictures."""
    from nbclient import NotebookClient

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")

    def run(name):
        notebook = read(name)
        NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute()
        EXECUTED.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, EXECUTED / f"{name}.ipynb")
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
        pictures = [output for output in outputs if any(kind.startswith("image/") for kind in output.get("data", {}))]
        return printed, len(pictures)

    return run


@pytest.mark.large
def test_quickstart(run):
    printed, pictures = run("quickstart")
    assert re.search(r"^ +\d\d\.\d%  \w+$", printed, re.MULTILINE)
    assert "1,248,424 parameters" in printed and "squeezenet1.1_authors" in printed
    assert pictures >= 3


@pytest.mark.large
def test_transfer(run):
    printed, pictures = run("transfer")
    assert str(list(KINDS)) in printed and f"{len(KINDS) * PICTURES // 4} for the test" in printed
    assert float(re.search(r"(\d+\.\d)% of the 12 test pictures", printed)[1]) >= 90
    assert re.findall(r"^(?:True|False)$", printed, re.MULTILINE) == ["True", "True"]  # Grad-CAM; the saved model
    assert pictures == len(KINDS)


@pytest.mark.large
def test_shrink(run):
    printed, pictures = run("shrink")
    rows = re.findall(r"^(\d) bits: +([\d,]+) bytes, .*agreement (\d+\.\d)%$", printed, re.MULTILINE)
    assert [int(bits) for bits, _, _ in rows] == [8, 7, 6, 5, 4]
    sizes = [int(size.replace(",", "")) for _, size, _ in rows]
    assert sizes == sorted(sizes, reverse=True) and float(rows[0][2]) == 100
    assert printed.endswith("True\n"), "the delta gives the changed weights"
    assert pictures == 2


@pytest.mark.large
def test_family(run):
    printed, pictures = run("family")
    assert printed.count("products |") == 14
    accuracies = re.findall(r"parameters, test top-1 (\d+\.\d)%", printed)
    assert len(accuracies) == 2 and all(float(accuracy) > 60 for accuracy in accuracies)
    assert pictures == 2
