"""The commented starter that `playbook new --kiosk` writes: a kiosk file and a playbook for it."""

KIOSK = """\
# yaml-language-server: $schema={schema}
#
# A kiosk performs shows unattended, for ever. See `playbook help kiosk`.
#
#   playbook check {file}   everything that is wrong with it, and with what it names
#   playbook kiosk {file}   perform it; type a signal's name and Enter to give the signal
#   playbook kiosk {file} --clock virtual --for 7d --trigger motion@2026-01-05T10:00   rehearse a week
#
version: 1
kiosk: {name}

# All hours and times are in this zone.
timezone: {zone}

# Without `open` it is always open. "22:00-02:00" goes past midnight.
open:
  mon-fri: "09:00-18:00"
  sat: "10:00-16:00"
  except: ["2026-12-24..2026-12-26"]

shows:
  welcome: {{playbook: {playbook}, vars: {{visitor: dear visitor}}}}

# What makes a show be performed: a signal, or a time. After the show the signal asks in vain for the cooldown.
play:
  - {{on: motion, show: welcome, cooldown: 20s}}
  - {{cron: "0 10,14 * * mon-fri", show: welcome, over: defer}}  # or cut, drop

# What is shown meanwhile: face, captions, black, or {{show: attract.yaml, every: 2m}}.
idle: face

# Who performs, best first. A rung that fails is left for the next one, and tried again later; captions cannot fail.
ladder: [local, captions]

# budget: {{per_day: 20.00}}        # when it is spent, only what costs nothing performs
# session: {{keep: 10m}}            # how long a session is kept open without a show
# controls: {{http: {{port: 8080}}}}  # POST /api/signal/NAME, /healthz and /metrics on this machine
keep_runs: 30d
"""
PLAYBOOK = """\
# yaml-language-server: $schema={schema}
version: 1
provider: local
vars:
  visitor: {{type: string, default: visitor}}
timeline:
  - say: Welcome, {{{{ visitor }}}}.
    id: hello
  - wait: 800ms
  - say: The lift is on your left.
  - end:
"""
