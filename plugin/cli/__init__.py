"""The `chancy-metrics` command: main.py has its groups, and each group of commands a file."""
