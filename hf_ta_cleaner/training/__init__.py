"""The cleaning run: its settings, the trainer, its memory and its strength."""
