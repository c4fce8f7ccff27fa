"""Tavus: `provider` (the conversation and its room), `echo` and `microphone` (two ways to speak), `emulator` and `emulator_room`."""
