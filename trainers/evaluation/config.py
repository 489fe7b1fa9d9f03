"""The config of sqz-evaluate, checked before any work."""

from __future__ import annotations

import dataclasses
import os

from sqz_keras.command import ModelConfig, flag_field
from sqz_keras.files import check_is_no_input, check_writable
from trainers.training.config import check_is_not_of_run


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(ModelConfig):
    """A model, labelled images, and where to write the reports. A field's help is also the help of its flag.

    Raises:
        ValueError, OSError: A report cannot be written, or would replace the other one, an input, or a file of a
            training run.
    """

    image_dir: str = flag_field(None, "Folder of labelled images.", required=True)
    labels: str | None = flag_field(None, "Text file with one class name per line, if the model has none.")
    batch_size: int = flag_field(32, "Images per batch.", lower_bound=1)
    report: str | None = flag_field(None, "JSON file for the results.")
    report_html: str | None = flag_field(
        None, "HTML file: calibration, confusions, accuracy by class, the worst mistakes with class maps."
    )

    def __post_init__(self):
        reports = self.reports()
        if len({os.path.realpath(path) for path in reports.values()}) < len(reports):
            raise ValueError(f"--report and --report_html are two files; both are {self.report}.")
        for flag, path in reports.items():
            check_writable(path)
            check_is_no_input(flag, path, {"--model": self.model, "--labels": self.labels})
            check_is_not_of_run(flag, path, self.model)

    def reports(self) -> dict[str, str]:
        """The files to write, by the flags that name them."""
        paths = {"report": self.report, "report_html": self.report_html}
        return {flag: path for flag, path in paths.items() if path}
