"""The events behind a point."""
