"""What a training sends to the Hub, and when."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..models.checkpoints import save_model
from .hub import claim, push_checkpoint, write_card
from .hub_errors import HubError
from .report import Report


logger = logging.getLogger(__name__)


class HubPublisher:
    """Pushes a run to one repository. `Trainer`'s own methods would push the whole folder, with its pickled arguments.

    Args:
        args: The `TACleanerConfig` of the run.
        processor: The model's processor.
    """

    def __init__(self, args: Any, processor: Any) -> None:
        self._args, self._processor = args, processor

    def claim(self, token: str | None = None, private: bool | None = None) -> str:
        """Makes sure of the repository and the token before anything is computed. Returns the repository's id."""
        return claim(
            self._args.hub_model_id,
            default=Path(self._args.output_dir).resolve().name,
            private=self._args.hub_private_repo if private is None else private,
            token=token or self._args.hub_token,
        )

    def write_card(
        self, model: Any, repo_id: str | None, report: Report | None = None, progress: str | None = None, folder=None
    ) -> None:
        """Writes README.md, and the report if there is one, into the output folder or into `folder`."""
        folder = Path(folder or self._args.output_dir)
        if report is not None:
            report.save(folder, overwrite=True)
        settings = {**self._args.recipe, "model": model.name_or_path}
        write_card(folder, settings=settings, repo_id=repo_id, progress=progress)

    def push(
        self,
        model: Any,
        repo_id: str,
        *,
        message: str | None = None,
        token: str | None = None,
        report: Report | None = None,
    ) -> str:
        """Saves the model and pushes it with processor, card and report in one commit. Returns the address."""
        save_model(model, self._processor, self._args.output_dir)
        self.write_card(model, repo_id, report)
        named = {"message": message} if message else {}
        return push_checkpoint(self._args.output_dir, repo_id, token=token or self._args.hub_token, **named)

    def push_progress(self, model: Any, repo_id: str, checkpoint: str, step: int, steps: int) -> None:
        """Pushes a saved checkpoint in one commit. A push that fails does not stop the training."""
        self._processor.image_processor.save_pretrained(checkpoint)
        done = f"step {step} of {steps}"
        try:
            self.write_card(model, repo_id, progress=f"**Not finished**: {done}.", folder=checkpoint)
            push_checkpoint(checkpoint, repo_id, token=self._args.hub_token, message=f"Training, {done}")
        except HubError as error:
            logger.warning("%s", error)
