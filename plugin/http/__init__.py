"""Routes for Chancy's API server: the dashboard's two (dashboard.py), and the page with its JSON (routes.py)."""
