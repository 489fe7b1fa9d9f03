import xml.etree.ElementTree as ElementTree

import pytest
from absl import flags

from sqz_keras.cli import summary


def test_the_table_of_the_paper(run_command, capsys):
    run_command(summary, "--version=1.0", "--on_chip_bytes=8000000")
    lines = capsys.readouterr().out.splitlines()
    fire4 = next(line.split() for line in lines if line.startswith("fire4"))
    assert fire4 == ["fire4", "55x55x256", "32/128/128", "100/100/33", "45,344", "20,646", "136.3M", "35"]
    assert next(line.split() for line in lines if line.startswith("total")) == [
        "total",
        "1,248,424",
        "421,098",
        "832.7M",
    ]
    float32, int8, codebooks = lines[-3:]
    assert "weights 4.76 MiB, 49 times smaller than AlexNet; does not fit 8,000,000" in float32
    assert int8.endswith("fits 8,000,000") and "does not" not in int8
    assert codebooks.startswith("  codebooks of 6 bits")


def test_a_file_of_weights_is_summarized(run_command, capsys, tmp_path, test_data):
    file = test_data / "weights" / "deep_compression" / "compressed_SqueezeNet.net"
    run_command(summary, f"--model={file}", "--densities=1")
    assert "15x15x1000" in capsys.readouterr().out  # with conv10's padding, which is not in the paper's table


@pytest.mark.parametrize("bypass", [None, "simple", "complex"])
def test_the_drawing_has_a_box_a_layer_and_an_arc_a_bypass(run_command, capsys, tmp_path, bypass):
    path = tmp_path / "net.svg"
    run_command(summary, f"--drawing={path}", *([f"--bypass={bypass}"] if bypass else []))
    svg = ElementTree.parse(path).getroot()
    boxes = svg.findall("{*}rect")[1:]
    assert len(boxes) == 14
    # conv10 has the most channels and the widest box; conv1 and pool1 have the fewest.
    widths = [float(box.get("width")) for box in boxes]
    assert max(widths) == widths[12] and min(widths) == widths[0] == widths[1]
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("identity") == (4 if bypass else 0)
    assert texts.count("conv 1x1") == (4 if bypass == "complex" else 0)


def test_a_png_is_drawn(run_command, tmp_path):
    from PIL import Image

    run_command(summary, f"--drawing={tmp_path / 'net.png'}", "--version=1.1")
    with Image.open(tmp_path / "net.png") as image:
        assert image.width == 1120 and len(image.getcolors(1 << 20)) > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metaparameters=pool_after=1,4"], "got '4'. Separate the places of pools by colons: pool_after=1:4:8."),
        (["--metaparameters=squeeze=1"], "Expected NAME=VALUE with a name of base_e"),
        (["--metaparameters=pool_after=1-2"], "layer numbers with colons, as 1:4:8, got '1-2'"),
        (["--metaparameters=freq=1.5"], "freq must be of type int, got '1.5'"),
        (["--model=x.net", "--metaparameters=freq=1"], "leave out --metaparameters"),
        (["--model=x.net", "--classes=5"], "leave out --classes"),
        (["--drawing=net.gif"], "saved as .svg or .png, not as .gif"),
        (["--drawing=missing/net.svg"], "existing folder"),
    ],
)
def test_mistakes_are_refused(run_command, arguments, message):
    with pytest.raises(ValueError, match=message):
        run_command(summary, *arguments)


def test_an_input_that_no_model_may_have_is_refused_by_its_flag(run_command):
    with pytest.raises(flags.IllegalFlagValueError, match="input_size"):
        run_command(summary, "--input_size=5000")
