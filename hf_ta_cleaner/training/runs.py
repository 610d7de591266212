"""What an interrupted run remembers: its settings, and the seconds that it trained."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME


#: Name of the file in the output folder.
RUN = "run.json"

#: Settings that may change when a run is continued: they change no weight (a budget: only which is chosen).
_FREE = frozenset(
    "resume output_dir logging_steps logging_dir logging_strategy report_to disable_tqdm save_total_limit run_name "
    "dataloader_num_workers dataloader_prefetch_factor dataloader_pin_memory eval_strategy eval_steps eval_dataset "
    "eval_split eval_image_column eval_label_column classnames_file max_eval_samples templates trigger target "
    "linear_probe probe_split retrieval_dataset retrieval_split retrieval_caption_column max_retrieval_samples "
    "reference geometry ca_baseline per_device_eval_batch_size push_to_hub hub_model_id hub_private_repo hub_token "
    "hub_strategy utility_budget".split()
)


class RunLog(TrainerCallback):
    """Keeps `run.json`: the settings of a run, and the seconds trained up to its last checkpoint.

    Args:
        folder: The run's output folder.
        settings: The settings that differ from their defaults, as plain values.
        resume: Whether this continues the run in `folder`.
        write: Whether this process writes; one does.
        renamed: Earlier names of settings -> their names now, for a run that an earlier version began.

    Raises:
        ValueError: A continued run began with other settings; both values are named.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any],
        *,
        resume: bool = False,
        write: bool = True,
        renamed: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._file, self._write = Path(folder) / RUN, write
        self._settings = {name: value for name, value in settings.items() if name not in _FREE}
        self._earlier, self._started = 0.0, time.perf_counter()
        if resume and self._file.is_file():
            begun = json.loads(self._file.read_text(encoding="utf-8"))
            self._compare({renamed.get(name, name): value for name, value in begun["settings"].items()})
            self._earlier = begun["seconds"]

    def _compare(self, begun: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(self._settings))
        changed = [name for name in sorted({*begun, *now}) if begun.get(name) != now.get(name)]
        if changed:
            pairs = "; ".join(f"{n}: {begun.get(n, 'default')} then, {now.get(n, 'default')} now" for n in changed)
            raise ValueError(
                f"the run in {self._file.parent} began with other settings ({pairs}). Give the same ones to continue "
                "it, or another --output_dir for a new run"
            )

    @property
    def seconds(self) -> float:
        """Training time so far in seconds, earlier parts of an interrupted run included."""
        return self.seconds_until(time.perf_counter())

    def seconds_until(self, moment: float) -> float:
        """Training time up to a moment of `time.perf_counter`."""
        return self._earlier + moment - self._started

    def _save(self, seconds: float) -> None:
        text = json.dumps({"settings": self._settings, "seconds": seconds}, indent=1, default=str)
        half = self._file.with_suffix(".tmp")
        half.write_text(text + "\n", encoding="utf-8")
        half.replace(self._file)

    def begin(self) -> None:
        """The run begins now; a trainer says so where this is its callback."""
        self._started = time.perf_counter()
        if self._write:  # not earlier: a run that fails before its first step leaves nothing to be continued
            self._save(self._earlier)

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.begin()

    def on_save(self, args, state, control, **kwargs) -> None:
        if self._write:
            self._save(self.seconds)


class StepCallback(TrainerCallback):
    """What happens at fixed points of the loop: the sampler's epoch, a legal temperature, a finite end."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        self.trainer.batches.begin_epoch(int(state.epoch))

    def on_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        self.trainer._gathered = 0
        self.trainer.family.clamp(self.trainer.accelerator.unwrap_model(model))

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self.trainer._check_weights()


def taken_over(trainer: Any, checkpoint: str | None) -> bool:
    """Whether the checkpoint is that of a run's last step; then the `TACleanerTrainer` is as the run left it.

    Going on from there would take a step more.
    """
    if checkpoint is None:
        return False
    state = json.loads((Path(checkpoint) / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    if not 0 < state.get("max_steps", 0) <= state.get("global_step", 0):
        return False
    best = state["best_model_checkpoint"] if trainer.args.load_best_model_at_end else None
    trainer.load_weights(best or checkpoint)
    trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    return True
