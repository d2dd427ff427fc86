"""Versions of the projection: made, advanced, promoted, replayed, expired."""
