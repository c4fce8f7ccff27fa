"""Who gives signals: each control is a file, and only names signals (`ports.Control`). What they do is the engine's business.

* `keyboard`, `stdin`: whoever started the program
* `keyboard`, `stdin`: whoever sits at the terminal, or what comes through a pipe, line by line (`reader`)
* `osc`, `mqtt`: other machines, by an address (`registry`)
"""
