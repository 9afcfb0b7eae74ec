"""A build that does what it is told: says "ready PID" and its slot, then obeys the lines on its stdin.

exit N       end with status N
kill N       end by signal N
echo TEXT    print TEXT
daemon HOW   leave a process behind that inherits every descriptor, but none if HOW has "closed" in it; with "deaf" it
             ignores SIGTERM; prints "daemon PID"
env NAME     print the variable

`--ignore N` ignores signal N; `--report N` says "signal N" whenever signal N comes and goes on.
"""

import os
import signal
import sys


def say(text: str) -> None:
    os.write(1, (text + "\n").encode())


def daemon(how: str) -> None:
    if os.fork() == 0:
        os.setsid()
        if "deaf" in how:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "closed" in how:
            os.closerange(3, 4096)
        say(f"daemon {os.getpid()}")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        while True:
            signal.pause()


def main() -> None:
    arguments = iter(sys.argv[1:])
    for option in arguments:
        number = int(next(arguments))
        if option == "--ignore":
            signal.signal(number, signal.SIG_IGN)
        elif option == "--report":
            signal.signal(number, lambda received, frame: say(f"signal {received}"))
    say(f"ready {os.getpid()}")
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "exit":
            sys.exit(int(rest))
        elif word == "kill":
            os.kill(os.getpid(), int(rest))
        elif word == "echo":
            say(rest)
        elif word == "daemon":
            daemon(rest)
        elif word == "env":
            say(os.environ.get(rest, ""))


main()
