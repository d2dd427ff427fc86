"""Is what is stored what the log says? The checks, their findings, and what they have covered."""
