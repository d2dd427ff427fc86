"""Who folds, when, and how much in a step."""
