"""Publishes the result: report, advice, model card, Hub."""
