"""Kaltura Avatar.

`provider` says what it can do; `session` is a session, `login` mints the KS that opens it, `stream` has the rules of its media. `emulator`
is the vendor on this machine.
"""
