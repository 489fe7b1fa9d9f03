import io
import sys

from trainers.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_a_state(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(10, "step", initial=4) as bar:
        bar.update()  # too soon after the first line
        bar.set_postfix_str("loss 0.25", refresh=False)
        bar.update(5)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "4/10" in lines[0]
    assert "10/10" in lines[1] and "loss 0.25" in lines[1] and "steps/s" in lines[1]
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_one_line_that_is_written_over(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(4, "image") as bar:
        bar.update(4)
    shown = stream.getvalue()
    assert shown.count("\n") == 1 and shown.endswith("\n")
    assert shown.count("\r") >= 2 and "4/4" in shown
