"""The embedded voice: `provider` (what lines sound like), `session`, `spoken` (lines in chunks, for other vendors' sessions too)."""
