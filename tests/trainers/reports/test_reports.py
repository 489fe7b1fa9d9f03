import base64
import hashlib
import html.parser
import io
import json
import math
import re

import numpy as np
import pytest

alt = pytest.importorskip("altair", reason="the reports need the extra `train`")
pytest.importorskip("vl_convert", reason="the reports need the extra `train`")

from PIL import Image  # noqa: E402

from benchmarks.report_speed import DRAWN  # noqa: E402
from trainers.reports.answers import MOST_MISTAKES, Mistake  # noqa: E402
from trainers.reports.page import Section, Table, save_chart, write_page  # noqa: E402
from trainers.reports.training import write_training_report  # noqa: E402

EVIL = "</script><script>document.title='taken'</script><img src=http://example.org/a.png onerror=alert(1)>&\"'"


def scatter(count=20):
    points = [{"x": index, "y": (index * 7) % 13} for index in range(count)]
    return alt.Chart(alt.Data(values=points)).mark_point().encode(x="x:Q", y="y:Q").properties(width="container")


def training_report(path, classes=3, **changes):
    labels = [EVIL, *(f"class {index}" for index in range(1, classes))]
    image = np.full((120, 200, 3), 200, np.uint8)
    arguments = {
        "title": EVIL,
        "history": [
            {"step": 20 * step, "loss": 1.0 / step, "learning_rate": 0.01, "images_per_second": 50.0}
            | ({"validation_top1_accuracy": 0.5} if step % 5 == 0 else {})
            for step in range(1, 21)
        ],
        "confusion": np.eye(classes, dtype=np.int64) * 5 + 1,
        "labels": labels,
        "mistakes": [Mistake(image, 0, 1, 0.9), Mistake(np.zeros((8, 8, 1), np.uint8), 1, 0, 0.95)],
        "config": {"model": {"version": "1.1", "labels": labels}, "seed": 0},
        "results": {"top1_accuracy": 0.957, "note": EVIL},
    }
    write_training_report(path, **arguments | changes)
    return path.read_text("utf-8")


def data_of(spec):
    return spec["data"]["values"]


class Page(html.parser.HTMLParser):
    """What a browser would make of the page's tags, without its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        (self.scripts if self.tags and self.tags[-1][0] == "script" else self.text).append(data)

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def specs(self):
        return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', self.source)[1])

    @classmethod
    def parse(cls, text):
        page = cls(text)
        page.source = text
        return page


class TestPage:
    def test_loads_nothing_and_runs_only_its_own_scripts(self, tmp_path):
        text = training_report(tmp_path / "report.html")
        page = Page.parse(text)
        for tag, attrs in page.tags:
            for name in ("src", "href", "srcset", "action", "data"):
                assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, attrs)
            assert not any(name.startswith("on") for name in attrs)
        assert (
            not page.of("link")
            and "@import" not in text
            and "url(" not in "".join(re.findall("<style>.*?</style>", text))
        )
        policy = next(attrs["content"] for attrs in page.of("meta") if "http-equiv" in attrs)
        assert policy.startswith("default-src 'none'; ") and "unsafe-eval" not in policy and "http" not in policy
        allowed = policy.partition("script-src ")[2]
        assert "unsafe-inline" not in allowed
        scripts = re.findall("<script>(.*?)</script>", text, re.DOTALL)
        assert allowed.split() == [
            f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
        ]

    def test_the_library_is_there_once_whatever_the_charts_and_not_without(self, tmp_path):
        sizes = {}
        for count in (0, 1, 5):
            sections = [Section(f"c{index}", chart=scatter()) for index in range(count)]
            write_page(tmp_path / "page.html", "t", [*sections, Section("h", html="<p>x</p>")])
            sizes[count] = (tmp_path / "page.html").stat().st_size
        assert sizes[0] < 30_000 < 500_000 < sizes[1] < sizes[5] < sizes[1] + 20_000

    def test_names_with_markup_stay_text(self, tmp_path):
        write_page(
            tmp_path / "page.html",
            EVIL,
            [
                Section(EVIL, table=Table([EVIL], [[EVIL]]), note=EVIL),
                Section(EVIL, chart=alt.Chart(alt.Data(values=[{"x": EVIL}])).mark_point().encode(x="x:N")),
            ],
        )
        page = Page.parse((tmp_path / "page.html").read_text("utf-8"))
        assert len(page.of("script")) == 3 and not page.of("img")
        # The title, h1, two links, two headings, the note, the column and the cell.
        assert "".join(page.text).count(EVIL) == 9
        assert data_of(page.specs["charts"][0]) == [{"x": EVIL}]

    def test_what_is_not_finite_becomes_null_in_a_chart_and_a_word_in_a_table(self, tmp_path):
        values = [{"x": 1, "y": math.nan}, {"x": np.int64(2), "y": np.float32("inf")}, {"x": 3, "y": 0.5}]
        chart = alt.Chart(alt.Data(values=values)).mark_line().encode(x="x:Q", y="y:Q")
        table = Table(["a", "b\udcff"], [[math.nan, None], [-math.inf, True], [np.float32(0.5), 1234567]])
        write_page(tmp_path / "page.html", "t", [Section("c", chart=chart), Section("t", table=table)])
        page = Page.parse((tmp_path / "page.html").read_text("utf-8"))
        drawn = data_of(page.specs["charts"][0])
        assert [point["y"] for point in drawn] == [None, None, 0.5]
        for cell in ("nan<", "-inf<", ">0.5<", ">1,234,567<", ">yes<"):
            assert cell in page.source

    def test_bad_sections_and_paths_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="Row 1 must have 2 values"):
            Table(["a", "b"], [[1, 2], [3]])
        with pytest.raises(ValueError, match=r"needs one of chart, table and html; it has none"):
            Section("empty")
        with pytest.raises(ValueError, match=r"\['table', 'html'\]"):
            Section("two", table=Table([], []), html="")
        with pytest.raises(ValueError, match="existing folder"):
            write_page(tmp_path / "none" / "page.html", "t", [])
        with pytest.raises(ValueError, match="existing folder"):
            write_page(tmp_path, "t", [])

    def test_a_failed_write_leaves_the_old_page_and_no_litter(self, tmp_path, monkeypatch):
        path = tmp_path / "page.html"
        write_page(path, "old", [])
        before = path.read_bytes()

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write_page(path, "new", [])
        assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]

    def test_a_chart_is_saved_for_a_paper(self, tmp_path):
        save_chart(scatter().properties(width=300), tmp_path / "chart.svg")
        assert (tmp_path / "chart.svg").read_text("utf-8").startswith("<svg")
        save_chart(scatter().properties(width=300), tmp_path / "chart.png")
        image = Image.open(tmp_path / "chart.png")
        assert image.width > 700 and image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        with pytest.raises(ValueError, match=r"\.svg or \.png, not as \.pdf"):
            save_chart(scatter(), tmp_path / "chart.pdf")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["chart.png", "chart.svg"]


class TestTrainingReport:
    def test_thumbnails_are_few_small_and_the_surest_first(self, tmp_path):
        image = np.random.default_rng(0).integers(0, 256, (300, 150, 3), np.uint8)
        mistakes = [Mistake(image, 0, 1, 0.5 + index / 100) for index in range(40)] + [Mistake(image, 1, 2, math.nan)]
        text = training_report(tmp_path / "report.html", mistakes=mistakes)
        images = Page.parse(text).of("img")
        assert len(images) == MOST_MISTAKES
        for attrs in images:
            data = base64.b64decode(attrs["src"].removeprefix("data:image/png;base64,"))
            assert Image.open(io.BytesIO(data)).size == (48, 96)
        shown = [float(value) for value in re.findall(r"<span>at</span> ([\d.]+)%", text)]
        assert shown == sorted(shown, reverse=True) and shown[0] == 89.0

    def test_many_classes_give_pairs_instead_of_a_map(self, tmp_path):
        confusion = np.eye(60, dtype=np.int64) * 9
        confusion[3, 7] = 4
        confusion[5, 2] = 2
        confusion[8] = 0
        text = training_report(tmp_path / "report.html", classes=60, confusion=confusion)
        assert "Confusion matrix" not in text
        cells = re.findall(r"<td[^>]*>(.*?)</td>", text.partition("Worst confusions</h2>")[2])
        assert cells[:8] == ["class 3", "class 7", "4", "0.3077", "class 5", "class 2", "2", "0.1818"]
        # The next table: the first class is never wrong, and class 8 has no images.
        assert cells[8:15] == [html.escape(EVIL), "9", "9", "1", "0.7009", "1", "-"]
        assert cells[8 + 8 * 7 :][:7] == ["class 8", "0", "0", "-", "-", "-", "-"]

    def test_classes_of_one_name_stay_apart(self, tmp_path):
        page = Page.parse(training_report(tmp_path / "report.html", labels=["crane", "crane", "maillot"]))
        heat_map = next(spec for spec in page.specs["charts"] if spec["description"] == "Confusion matrix")
        cells = data_of(heat_map)
        assert len({(cell["truth"], cell["predicted"]) for cell in cells}) == 9
        assert cells[1] == {"truth": "crane (class 0)", "predicted": "crane (class 1)", "images": 1, "share": 0.125}

    def test_long_and_broken_histories(self, tmp_path):
        history = [{"step": step, "loss": math.nan if step == 7 else 1.0} for step in range(1, 25_001)]
        page = Page.parse(training_report(tmp_path / "report.html", history=history))
        points = data_of(page.specs["charts"][0])
        assert len(points) <= 1000 and points[-1]["step"] == 25_000
        assert "1 not finite, left out." in page.source
        assert not {"Learning rate", "Top-1 accuracy"} & {spec["description"] for spec in page.specs["charts"]}

    def test_a_run_without_history_images_or_mistakes(self, tmp_path):
        text = training_report(tmp_path / "r.html", history=[], mistakes=[], confusion=np.zeros((3, 3), np.int64))
        assert "<h2>Config</h2>" in text and "Worst mistakes" not in text and 'class="chart"' not in text

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"confusion": np.zeros((3, 2), np.int64)}, r"counts of shape \(3, 3\)"),
            ({"confusion": np.zeros((3, 3))}, "it is float64"),
            ({"confusion": -np.eye(3, dtype=np.int64)}, "counts"),
            ({"mistakes": [Mistake(np.zeros((8, 8, 3), np.float32), 0, 1, 0.5)]}, "must be uint8"),
            ({"mistakes": [Mistake(np.zeros((8, 8), np.uint8), 0, 1, 0.5)]}, "must be uint8"),
            ({"mistakes": [Mistake(np.zeros((8, 8, 3), np.uint8), 0, 3, 0.5)]}, "must be 0 to 2"),
        ],
    )
    def test_what_does_not_fit_is_refused_and_nothing_written(self, tmp_path, changes, message):
        with pytest.raises(ValueError, match=message):
            training_report(tmp_path / "report.html", **changes)
        assert not list(tmp_path.iterdir())


class TestInABrowser:
    @pytest.mark.parametrize("dark", [False, True])
    def test_charts_are_drawn_without_complaint(self, tmp_path, browser, dark):
        training_report(tmp_path / "report.html")
        tab = browser.open((tmp_path / "report.html").as_uri(), dark=dark)
        tab.wait(DRAWN)
        assert tab.complaints() == []
        # A script of the page may use any name: the library's own names are not global.
        tab.run("const " + ", ".join(f"{letter} = 1" for letter in "abcdehnrtw") + ";")
        charts = tab.run("document.querySelector('main').outerHTML")
        assert charts.count("<svg") == 5 and "cannot be drawn" not in charts
        assert charts.count("mark-rect role-mark") == 1 and charts.count("mark-line role-mark") == 4
        assert ('stroke="#62b8f0"' in charts) == dark
        assert tab.run("document.title") == EVIL  # no label has run and changed it

    def test_a_table_sorts_and_filters(self, tmp_path, browser):
        values = [10, 9, None, math.nan, -math.inf, 0.5, 1e-9, 2000000, 3, math.inf, 7, 8]
        rows = [[value, f"item {index}", index % 2 == 0] for index, value in enumerate(values)]
        write_page(tmp_path / "page.html", "t", [Section("t", table=Table(["number", "name", "even"], rows))])
        tab = browser.open((tmp_path / "page.html").as_uri())
        said = tab.run(
            """(() => {
            const column = index => [...document.querySelectorAll("tbody tr")].filter(row => !row.hidden)
              .map(row => row.cells[index].textContent).join("|");
            const heads = document.querySelectorAll("th"), said = [];
            heads[0].firstElementChild.click(); said.push(column(0), heads[0].getAttribute("aria-sort"));
            heads[0].firstElementChild.click(); said.push(column(0), heads[0].getAttribute("aria-sort"));
            heads[1].firstElementChild.click(); said.push(column(1), heads[0].getAttribute("aria-sort"));
            const input = document.querySelector("input");
            input.value = "ITEM 1"; input.dispatchEvent(new Event("input"));
            said.push(column(1), document.querySelector("output").textContent);
            input.value = ""; input.dispatchEvent(new Event("input")); said.push(column(1).split("|").length);
            return said;
            })()"""
        )
        assert tab.complaints() == []
        assert said == [
            "-inf|1e-09|0.5|3|7|8|9|10|2,000,000|inf|-|nan",
            "ascending",
            "inf|2,000,000|10|9|8|7|3|0.5|1e-09|-inf|-|nan",
            "descending",
            "|".join(f"item {index}" for index in range(12)),
            None,
            "item 1|item 10|item 11",
            "3 of 12",
            12,
        ]

    def test_a_long_table_shows_more_rows_as_the_reader_scrolls(self, tmp_path, browser):
        rows = [[index, f"item {index}"] for index in range(250)]
        write_page(tmp_path / "page.html", "t", [Section("t", table=Table(["number", "name"], rows))])
        tab = browser.open((tmp_path / "page.html").as_uri())
        shown = "[...document.querySelectorAll('tbody tr')].filter(row => row.getClientRects().length)"
        first_and_count = f"(rows => [rows[0].cells[0].textContent, rows.length])({shown})"
        to_the_end = "(box => { box.scrollTop = box.scrollHeight; })(document.querySelector('.rows'))"
        assert tab.run(first_and_count) == ["0", 100]
        for count in (200, 250, 250):
            tab.run(to_the_end)
            tab.wait(f"{shown}.length === {count}")
        tab.run("document.querySelectorAll('th button')[0].click()")
        tab.run("document.querySelectorAll('th button')[0].click()")
        assert tab.run(first_and_count)[0] == "249"
        filter_by = "(input => { input.value = '%s'; input.dispatchEvent(new Event('input')); })"
        tab.run(filter_by % "item 3" + "(document.querySelector('input'))")
        assert tab.run(first_and_count) == ["39", 11]
        tab.run(filter_by % "" + "(document.querySelector('input'))")
        assert tab.run(first_and_count) == ["249", 100]
        tab.run("dispatchEvent(new Event('beforeprint'))")
        assert tab.run(first_and_count) == ["249", 250]
        assert tab.complaints() == []
