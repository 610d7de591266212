"""What a run has to remember when it is interrupted: with which settings it began, and how long it has taken."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


#: Name of the file in the output folder.
RUN = "run.json"

#: Settings that may change when a run is continued: they change no weight.
_FREE = frozenset(
    "resume output_dir logging_steps logging_dir logging_strategy report_to disable_tqdm save_total_limit run_name "
    "dataloader_num_workers dataloader_prefetch_factor dataloader_pin_memory eval_strategy eval_steps eval_dataset "
    "eval_split eval_image_column eval_label_column classnames_file max_eval_samples templates trigger target "
    "reference geometry ca_baseline per_device_eval_batch_size".split()
)


class RunLog(TrainerCallback):
    """Keeps `run.json`: the settings of a run, and the seconds trained up to its last checkpoint.

    Args:
        folder: The run's output folder.
        settings: The settings that differ from their defaults, as plain values.
        resume: Whether this continues the run in `folder`.
        write: Whether this process writes; one does.

    Raises:
        ValueError: A continued run began with other settings; both values are named.
    """

    def __init__(
        self, folder: str | Path, settings: Mapping[str, Any], *, resume: bool = False, write: bool = True
    ) -> None:
        self._file, self._write = Path(folder) / RUN, write
        self._settings = {name: value for name, value in settings.items() if name not in _FREE}
        self._earlier, self._started = 0.0, time.perf_counter()
        if resume and self._file.is_file():
            begun = json.loads(self._file.read_text(encoding="utf-8"))
            self._compare(begun["settings"])
            self._earlier = begun["seconds"]

    def _compare(self, begun: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(self._settings))
        changed = [name for name in sorted({*begun, *now}) if begun.get(name) != now.get(name)]
        if changed:
            told = "; ".join(f"{n}: {begun.get(n, 'default')} then, {now.get(n, 'default')} now" for n in changed)
            raise ValueError(
                f"the run in {self._file.parent} began with other settings ({told}). Give the same ones to continue "
                "it, or another --output_dir for a new run"
            )

    @property
    def seconds(self) -> float:
        """Training time so far in seconds, earlier parts of an interrupted run included."""
        return self._earlier + time.perf_counter() - self._started

    def _save(self, seconds: float) -> None:
        text = json.dumps({"settings": self._settings, "seconds": seconds}, indent=1, default=str)
        half = self._file.with_suffix(".tmp")
        half.write_text(text + "\n", encoding="utf-8")
        half.replace(self._file)

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self._started = time.perf_counter()
        if self._write:  # not earlier: a run that fails before its first step leaves nothing to be continued
            self._save(self._earlier)

    def on_save(self, args, state, control, **kwargs) -> None:
        if self._write:
            self._save(self.seconds)
