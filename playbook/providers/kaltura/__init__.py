"""Kaltura Avatar: `provider`, `login` (how a KS is minted), `emulator`."""
