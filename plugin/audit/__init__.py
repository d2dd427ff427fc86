"""Read, follow and explain raw events; record marks; seal and check the log."""
