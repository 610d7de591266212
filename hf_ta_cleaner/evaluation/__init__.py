"""Measures a model: attack success, clean accuracy, retrieval, linear probe."""
