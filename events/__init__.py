"""What happened: facts, their encoding, the append-only log and its order."""
