"""Versions beside the live one: rebuild them, roll out new rules, list them."""
