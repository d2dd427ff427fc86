"""Search the log for events."""
