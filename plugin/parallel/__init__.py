"""Many cores and machines: tasks on an executor of the standard library, and where they read."""
