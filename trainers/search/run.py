"""Runs a sweep for sqz-sweep and prints its results."""

from __future__ import annotations

import dataclasses
import sys

from trainers.data.image_folder import check_is_no_class
from trainers.search.config import SweepConfig
from trainers.search.study import sweep
from trainers.search.table import best_lines
from trainers.training.interruption import Interrupted
from trainers.training.loop import open_source
from trainers.training.workdir import images_of


def run_sweep(config: SweepConfig, workdir: str | None, data_dir: str | None) -> int:
    """Runs a sweep and prints the best nets.

    Returns:
        The exit status: 0, 1 if no net could be trained, 130 after Ctrl-C.

    Raises:
        ValueError: No workdir was given, or `sweep` refuses the config.
    """
    if not workdir:
        raise ValueError("--workdir=DIR is needed, a folder for what the sweep writes; or --dry_run.")
    if config.train.image_dir:
        check_is_no_class(workdir, config.train.image_dir)
    # The study keeps its recipe, so an error in the recipe is reported now, before the study is made.
    source = open_source(config.train, data_dir)
    config = dataclasses.replace(config, images=images_of(source))
    try:
        records = sweep(config, workdir, data_dir)
    except (Interrupted, KeyboardInterrupt) as stopped:
        print(f"\nsqz-sweep: {str(stopped) or 'interrupted.'} What is finished is kept.", file=sys.stderr)
        return stopped.exit_status if isinstance(stopped, Interrupted) else 130
    if not any(record["state"] == "complete" for record in records):
        print(f"sqz-sweep: no network could be trained to its end; see {workdir}/trials.json", file=sys.stderr)
        return 1
    print("\n".join(best_lines(config.objectives, records)))
    print(f"report: {workdir}/report.html")
    return 0
