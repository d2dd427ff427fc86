"""Record: from a job update or a direct call to a batch in the log."""
