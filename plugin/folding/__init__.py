"""Sequence and fold: which process folds, when, and how much in a step."""
