"""The chancy-metrics command."""
