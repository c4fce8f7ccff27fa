"""What is tried hard: each trial is a function of how long and from which seed, and returns figures. It raises when something broke.

`tests/test_trials.py` runs each for a second or two, `python -m tests.bench trial` at full length.
"""
