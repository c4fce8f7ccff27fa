"""The stage: a page on which an avatar is seen and heard, a page from which a person runs the show, and their server.

* `board`: what the pages and `GET /api/state` show, folded from the plan and the lines of the log
* `guard`: who may: hosts, origins, the token, the content policy
* `hub`: the open pages: their sockets, clocks and ears
* `sounds`: the sound that we make, as the pages receive it
* `director`: performs the playbook on every `go`, and reads it anew when it has changed
* `manner`: how it performs, told by the command line
* `audience`: who watches, by which viewer, and what the pages' ears tell
* `server`: addresses, routes, the server itself
* `pages/`: what is served

The stage names signals, watches the log, and shows a viewer; it decides nothing about speech. Times that pages see are milliseconds of
the server's own clock (`Director.now_ms`); a run's times are moved to it. Imports everything below the command line.
"""
