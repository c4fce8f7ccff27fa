"""Shows performed unattended, for ever: `playbook kiosk lobby.yaml`.

* `file`: a kiosk file to data; `check`: what is wrong with it and with what it names
* `hours`, `times`: when it is open, when a show is due
* `schedule`: which show is next; `ladder`: which rung performs it
* `proof`: the kiosk's log, and what it says of each day
* `supervisor`: the process that starts the kiosk again; `notify`: what systemd is told

Above the performance, never in the engine. The wall time is `clock`'s, so that a week takes a minute on the virtual
clock. May be imported by `api`, `report` and `cli`.
"""
