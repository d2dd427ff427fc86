"""Explain a point: recompute it from the log, and break down the events behind it."""
