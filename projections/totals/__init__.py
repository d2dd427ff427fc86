"""Totals: one row a series since the log and its baseline begin, for exporters; they never fall."""
