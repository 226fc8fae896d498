"""Run other people's installers: show how far they are, keep the rest in a log.

The standard library is enough for it, and Python 3.6: see tools/environment.py.
"""

import os
import re
import subprocess
import sys

# What pip, uv, Playwright's installer and apt-get write when a download begins or goes on.
PROGRESS = re.compile(r" *(Downloading .*?)(?: \(from .*|\x1b.*)?$|(\|.*\|.*)|(Get:.*)")
FAULT = re.compile(r"(?:error|Error|ERROR|E): (.+)")
OFFLINE = re.compile(
    r"name resolution|Name or service|[Nn]etwork is unreachable|[Cc]onnection refused|"
    r"dns error|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|timed out|tcp connect|"
    r"Could not resolve|NewConnectionError|Failed to establish|Could not connect"
)


def say(line):
    """Tell the user something at once; what a program answers is apart, in stdout."""
    print(line, file=sys.stderr, flush=True)


def install(command, log, **settings):
    """Run an installer and return why it failed, in one line; nothing if it did not.

    Args:
        command: The program and its arguments.
        log: The path of the file that gets all it says. It is written anew.
        **settings: Environment variables, unless they are set already, and not to nothing.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(str(log), "w+", encoding="utf-8", errors="replace") as file:
        with subprocess.Popen(
            command,
            env={
                **os.environ,
                **{n: os.environ.get(n) or v for n, v in settings.items()},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            seen = {""}
            for line in process.stdout:
                file.write(line)
                match = PROGRESS.match(line)
                progress = match and next(filter(None, match.groups()))
                if progress and progress not in seen:
                    seen.add(progress)
                    say(progress)
        if process.returncode == 0:
            return ""
        file.seek(0)
        text = file.read()
    faults = FAULT.findall(text) or text.split("\n")[-2:-1] or ["it says nothing"]
    network = "no network? " if OFFLINE.search(text) else ""
    return f"{network}{faults[0].strip()}; all it said is in {log}"
