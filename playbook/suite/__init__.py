"""Many playbooks as one test: which cases there are (`case`), each performed and judged (`judge`), several at a time (`workers`).

A *case* is a playbook, or a playbook with one row of data. It is performed by the runner like any other run, compared with its baseline
when it has one (a row has one of its own), and comes out with one `Status`. Nothing is retried. A case that could not be performed is an
*error* (its own exit code says whose fault it is), one that did not do what was expected has *failed*, one that was left out says why.

May be imported by the faces (`cli`, `pytest_plugin`).
"""

from playbook.suite.case import Case, Task, cases, check_tapes, tasks
from playbook.suite.judge import STATUSES, Result, Setup, check_faults, check_steps, in_vain, perform, show
from playbook.suite.workers import Suite

__all__ = [
    "STATUSES",
    "Case",
    "Result",
    "Setup",
    "Suite",
    "Task",
    "cases",
    "check_faults",
    "check_steps",
    "check_tapes",
    "in_vain",
    "perform",
    "show",
    "tasks",
]
