"""Conditions over the stored points, and their replay over time that has passed."""
