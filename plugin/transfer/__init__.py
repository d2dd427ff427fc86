"""The log to files and back."""
