"""What a sweep is asked to do: one frozen config."""

from __future__ import annotations

import dataclasses
from typing import Any

from trainers.evaluation.objectives import OBJECTIVES
from trainers.search.samplers import make_sampler
from trainers.search.space import Point, Space, point_flags
from trainers.training.config import TrainConfig

_HEARTBEAT_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What is searched, how, and for what.

    Args:
        space: of the nets.
        train_flags: sqz-train's for `train`, for the command that stands beside each point.
        sampler: one of `SAMPLERS`.
        objectives: one or more of `OBJECTIVES`.
        trials: finished ones after which the sweep ends; a grid ends with its last point.
        train: how each net is trained; its model gives input, classes and preprocessing.
        seed: of the sampler.
        prune: end a trial whose validation accuracy is below the median of the others'.
        storage: URL of the study's database; "" is a SQLite file in the workdir.
        heartbeat_seconds: between two signs of life of a worker; after three times that its trial is given to another.

    Raises:
        ValueError: a value is not one of those above, or two contradict each other.
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
    heartbeat_seconds: int = _HEARTBEAT_SECONDS

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
        """What workers of one study must have in common."""
        return {
            "space": self.space.to_json(),
            "grid": self.sampler == "grid",
            "objectives": list(self.objectives),
            "train": self.train.to_json(),
        }

    def trial_config(self, point: Point) -> TrainConfig:
        """How the net at a point is trained."""
        return dataclasses.replace(self.train, model=self.space.spec(self.train.model, point))

    def command(self, run: TrainConfig) -> str:
        """What trains the net of `run` again."""
        return " ".join(filter(None, ("sqz-train", self.train_flags, point_flags(run.model), "--workdir=DIR")))
