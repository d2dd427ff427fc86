"""Check the log, the ledger, the rollups and the cache against each other, and keep what was found and covered."""
