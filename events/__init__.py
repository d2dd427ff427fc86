"""Events: facts, their encoding, the append-only log, and the ledger that orders it."""
