"""Whoever gives signals from outside. Each is one file and an entry point; it only names signals, and the performance knows what they do.

* `osc`, `mqtt`: other machines, by an address (`registry`)
"""
