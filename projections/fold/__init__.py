"""Fold events into points: pure, commutative, exact."""
