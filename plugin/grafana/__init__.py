"""Dashboards for Grafana, over the SQL views and over the exported families."""
