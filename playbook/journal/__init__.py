"""Billed sessions: what is open (`journal`), and how one that is being created is never lost (`witness`, `courier`)."""
