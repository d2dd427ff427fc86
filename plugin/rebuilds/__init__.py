"""New versions: rebuilt, backfilled, promoted, rolled out, listed."""
