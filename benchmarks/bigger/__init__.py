"""The road from pretraining to proof in a bigger world: see README.md."""
