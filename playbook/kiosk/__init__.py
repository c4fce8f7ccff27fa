"""Shows performed unattended, for ever: `playbook kiosk lobby.yaml`.

* `file`: a kiosk file to data; `programme`: its shows compiled for each rung, and what is wrong with them
* `hours`, `times`: when it is open, when a show is due; `schedule`: which show is next
* `ladder`, `lending`, `money`: which rung may perform, with which session, for what money; `rungs`: all three together
* `attempt`, `progress`: a performance on one rung; a show on its way from rung to rung
* `operation`: the loop that brings them together; `stand`, `assemble`: what stands around it
* `proof`, `days`, `page`: the kiosk's log, and what it says of each day; `keeping`: run folders
* `screen`, `web`, `metrics`: the stage's pages, fed by a kiosk; health and metrics beside them
* `supervisor`: the process that starts a kiosk again; `notify`: what systemd is told
* `dated`: signals and faults of a rehearsal; `starter`: what `new --kiosk` writes; `silent`: the rung that cannot fail

Above the performance and the stage, never in the engine. The wall time is `clock`'s, so that a week takes a minute on the
virtual clock. May be imported by `cli`.
"""
