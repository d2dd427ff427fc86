"""Sequence and fold on one process: which process folds, when, and how much in a step."""
