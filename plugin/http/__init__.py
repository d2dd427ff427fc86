"""Routes for Chancy's API server: the dashboard's, and those of the page."""
