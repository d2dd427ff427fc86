"""The health of the pipeline: its status, what is missing from the numbers, and whether they are right."""
