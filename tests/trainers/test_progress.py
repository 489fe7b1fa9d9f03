import io

from trainers.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    progress = Progress(10, "step", images_per_unit=4, stream=stream)
    progress.show(1)
    progress.show(5, "loss 0.5", now=True)
    progress.show(10, "loss 0.25")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2, "the first came too soon"
    assert lines[0].startswith("step 5/10  loss 0.5  ") and "images/s" in lines[0] and lines[0].endswith("left")
    assert lines[1].startswith("step 10/10  loss 0.25") and "took" in lines[1]
    assert "\r" not in stream.getvalue()


def test_one_line_is_rewritten_on_a_terminal():
    stream = _Terminal()
    progress = Progress(4, "image", stream=stream)
    progress.show(2, "a text that is long", now=True)
    progress.message("x.png is broken")
    progress.show(4)
    shown = stream.getvalue()
    assert shown.count("\n") == 2 and shown.endswith("\n")
    assert "[##########..........] image 2/4" in shown
    assert "[####################] image 4/4" in shown
