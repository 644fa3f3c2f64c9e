"""What ``--help`` shows behind the options: examples, and the environment's names. Texts only, by heading.

A line is shown as it is, with two columns before it, so it has 78 characters at most. tests/cli/test_sections.py tries
the examples. Read next: options.py, the options; sections.py, which shows both.
"""

main_notes = {
    "Try first": """\
etherws demo             as root: a tunnel inside this machine, to look at
etherws init server      as root: set up a server, and get a line for a client
etherws server           as root, on one machine
etherws client ws://HOST/
                         as root, on another; HOST is the first machine
etherws COMMAND --help   the options of a command""",
}

passwd_notes = {
    "Examples": """\
etherws passwd users alice
etherws server --htpasswd users
etherws passwd --token --out branch1.token tokens branch1
etherws server --token-file tokens""",
}

check_notes = {
    "Examples": """\
etherws check            this machine: can it carry a tunnel?
etherws check wss://host.example/ --token-file branch1.token
etherws check /etc/etherws/server/lan.toml
etherws check policy.toml""",
    "Environment": """\
The options of etherws client have their variables here too: ETHERWS_CLIENT_
and the name in capitals, with _ for -.""",
}

init_notes = {
    "Examples": """\
etherws init server --host host.example --enable
                         as root; it prints a line
etherws init client --enable
                         as root, on the other side; it asks for that line""",
}

init_server_notes = {
    "Examples": """\
etherws init server                it asks
etherws init server --host host.example --bridge br0 --enable
etherws init server --client branch2""",
}

init_client_notes = {
    "Examples": """\
etherws init client                it asks for the line
etherws init client --bridge br0 --enable
etherws init client --invitation lan.invitation""",
}

server_notes = {
    "Examples": """\
etherws server --bridge br0
etherws server --certfile ssl.crt --keyfile ssl.key --token-file tokens
etherws server --config lan.toml
etherws server --address unix:/run/etherws.sock --trusted-proxy unix""",
    "Environment": """\
Each option has a variable, ETHERWS_SERVER_ and its name in capitals, with _
for -: ETHERWS_SERVER_PORT=8080, ETHERWS_SERVER_TOKEN_FILE=/etc/tokens,
ETHERWS_SERVER_FOREGROUND=1. The option comes before the variable, and that
before the file of --config.""",
}

client_notes = {
    "Examples": """\
etherws client --uri ws://192.0.2.1/ --bridge br0
etherws client --uri wss://host.example/ --token-file branch1.token
etherws client --uri wss://host.example/ --cacert ssl.crt --user alice""",
    "Environment": """\
Each option has a variable, ETHERWS_CLIENT_ and its name in capitals, with _
for -: ETHERWS_CLIENT_URI=wss://host.example/, ETHERWS_CLIENT_FOREGROUND=1.
The option comes before the variable, and that before the file of --config.
These have no option of their name:
  ETHERWS_CLIENT_PASSWORD   the password of --user
  ETHERWS_CLIENT_TOKEN      the token, if there is no --token-file and no user
  https_proxy, http_proxy, all_proxy, no_proxy
                            the proxy for wss://, for ws://, for both; hosts
                            without one""",
}

status_notes = {
    "Examples": """\
etherws status                     all that runs on this machine
etherws status lan --watch         the server or client of the unit ...@lan
etherws status --client branch1    all that is known of one client
etherws status --json              for programs""",
    "Exit status": """\
69  nothing runs       75  it does not answer      77  you may not ask it""",
}

events_notes = {
    "Examples": """\
etherws events                     the last thousand
etherws events lan --follow        and all that come""",
}

kick_notes = {
    "Examples": """\
etherws kick branch1               it may come back at once
etherws kick lan 203.0.113.5 --for 10m""",
}

stop_notes = {
    "Examples": """\
etherws stop lan                   a unit is stopped by systemctl""",
}

reload_notes = {
    "Examples": """\
etherws reload lan                 a unit is reloaded by systemctl""",
}

drain_notes = {
    "Examples": """\
etherws drain lan --over 10m       then, when all have gone:
etherws stop lan""",
}

page_notes = {
    "Examples": """\
etherws page lan""",
}

completion_notes = {
    "Examples": """\
etherws completion bash >/usr/local/share/bash-completion/completions/etherws
etherws completion zsh >/usr/local/share/zsh/site-functions/_etherws
etherws completion fish >/etc/fish/completions/etherws.fish""",
}
