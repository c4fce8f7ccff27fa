"""Avaturn Live.

`provider` says what its engines can do; `session` is a session of text echo, `external` one of the external engine; `emulator` and its
neighbours are the vendor on this machine.
"""
