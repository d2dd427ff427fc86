"""Raw events read, explained, marked, and sealed."""
