"""Tavus in echo mode.

`provider` says what it can do; `session` is a conversation and its room, `echo` and `microphone` are two ways to speak in it. `emulator`
and `emulator_room` are the vendor on this machine.
"""
