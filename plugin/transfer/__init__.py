"""Export the log to files, import it, archive its days, write events as Parquet, keep a cursor in a file."""
