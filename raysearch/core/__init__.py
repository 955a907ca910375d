"""The shared vocabulary of all rooms, and the messages between search, pool and ledger."""
