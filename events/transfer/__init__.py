"""The log taken elsewhere: the export format, its checks, and its rows."""
