"""The frozen config of a sweep."""

from __future__ import annotations

import dataclasses
from typing import Any

from trainers.evaluation.objectives import OBJECTIVES
from trainers.search.samplers import make_sampler
from trainers.search.space import Point, Space, point_flags
from trainers.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """The space, the method and the objectives of a sweep.

    Args:
        space: Space of the nets.
        train_flags: Flags of sqz-train that make `train`, for the command shown beside each point.
        sampler: One of `SAMPLERS`.
        objectives: One or more of `OBJECTIVES`.
        trials: Number of finished trials after which the sweep ends; a grid ends with its last point.
        train: Config with which each net is trained; its model gives input, classes and preprocessing.
        seed: Seed of the sampler.
        prune: Whether to end a trial whose validation accuracy is below the median of the others'.
        storage: URL of the study's database; "" is a SQLite file in the workdir.
        images: What `images_of` returns for the images, which all workers must share.
        heartbeat_seconds: Interval of a worker's heartbeats; if three are missing, another worker takes its trial.

    Raises:
        ValueError: A value is not one of those above, or two values contradict each other.
    """

    space: Space
    train: TrainConfig
    train_flags: str = ""
    sampler: str = "tpe"
    objectives: tuple[str, ...] = ("top1",)
    trials: int = 20
    seed: int = 0
    prune: bool = False
    storage: str = ""
    images: dict[str, Any] = dataclasses.field(default_factory=dict)
    heartbeat_seconds: int = 30

    def __post_init__(self):
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown or not self.objectives or len(set(self.objectives)) != len(self.objectives):
            raise ValueError(f"--objectives must be different ones of {', '.join(OBJECTIVES)}, got {self.objectives}.")
        if self.prune and (self.objectives != ("top1",) or self.sampler == "grid"):
            raise ValueError(
                "--prune compares validation accuracies: it goes with --objectives=top1, and not with a grid."
            )
        if self.trials < 1:
            raise ValueError(f"--trials must be at least 1, got {self.trials}.")
        make_sampler(self.sampler, self.seed, self.trials, len(self.objectives))
        if self.sampler == "grid":
            self.space.grid()
        if self.storage and "://" not in self.storage:
            raise ValueError(
                f"--storage={self.storage} must be a URL, such as sqlite:///FILE or postgresql://HOST/NAME."
            )

    def subject(self) -> dict[str, Any]:
        """The values that all workers of a study must share."""
        return {
            "space": self.space.to_json(),
            "grid": self.sampler == "grid",
            "objectives": list(self.objectives),
            "train": self.train.deciding_fields(),
            "images": self.images,
        }

    def trial_config(self, point: Point) -> TrainConfig:
        """The config with which the net at a point is trained."""
        return dataclasses.replace(self.train, model=self.space.spec(self.train.model, point))

    def command(self, run: TrainConfig) -> str:
        """The command that trains the net of `run` again."""
        return " ".join(filter(None, ("sqz-train", self.train_flags, point_flags(run.model), "--workdir=DIR")))
