"""What the facts add up to: folds, rollups, versions and the checks that compare them."""
