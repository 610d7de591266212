"""What `TACleanerTrainer` sends to the Hub, and when."""

from __future__ import annotations

import logging
from pathlib import Path

from ..models.checkpoints import save_model
from ..publishing.hub import claim, push_checkpoint, write_card
from ..publishing.hub_errors import HubError
from ..publishing.report import Report


logger = logging.getLogger(__name__)


class HubPublishing:
    """The Hub methods of a `transformers.Trainer`, which this stands before in the trainer's bases.

    Trainer's own would push the whole folder, its arguments pickled, under a card that knows nothing of the report.
    """

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes sure of the repository and the token before anything is computed."""
        if self.is_world_process_zero():
            self.hub_model_id = claim(
                self.args.hub_model_id,
                default=Path(self.args.output_dir).resolve().name,
                private=self.args.hub_private_repo if private is None else private,
                token=token or self.args.hub_token,
            )

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """As Trainer does it, but that the token is not among the settings it pickles."""
        token, self.args.hub_token = self.args.hub_token, None
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.args.hub_token = token

    def create_model_card(self, report: Report | None = None, progress: str | None = None, folder=None) -> None:
        """Writes README.md (and `report`, if given) into the output folder, or into `folder`."""
        folder = Path(folder or self.args.output_dir)
        if report is not None:
            report.save(folder, overwrite=True)
        settings = {**self.args.recipe, "model": self.model.name_or_path}
        write_card(folder, settings=settings, repo_id=self.hub_model_id, progress=progress)

    def push_to_hub(
        self,
        commit_message: str | None = None,
        token: str | None = None,
        private: bool | None = None,
        revision: None = None,
        report: Report | None = None,
    ) -> str | None:
        """Saves the model and pushes it with processor, card and report in one commit. Returns the address.

        Args:
            commit_message: (default: what was added.)
            token, private: In place of the settings'.
            revision: Only `Trainer.save_model` passes it; pushes go to main.
            report: What was measured; saved beside the model, and in the card.
        """
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        if not self.is_world_process_zero():
            return None
        save_model(self.accelerator.unwrap_model(self.model), self.processing_class, self.args.output_dir)
        self.create_model_card(report)
        message = {"message": commit_message} if commit_message else {}
        return push_checkpoint(self.args.output_dir, self.hub_model_id, token=token or self.args.hub_token, **message)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """One commit for a saved checkpoint, if that is asked for; a push that fails does not stop the training."""
        if self.args.hub_strategy == "end" or not self.is_world_process_zero():
            return
        self.processing_class.image_processor.save_pretrained(checkpoint_folder)
        step = f"step {self.state.global_step} of {self.state.max_steps}"
        try:
            self.create_model_card(progress=f"**Not finished**: {step}.", folder=checkpoint_folder)
            push_checkpoint(
                checkpoint_folder, self.hub_model_id, token=self.args.hub_token, message=f"Training, {step}"
            )
        except HubError as error:
            logger.warning("%s", error)
