"""Avaturn Live: `provider` (the sessions, text echo), `external` (the external engine), `emulator`."""
