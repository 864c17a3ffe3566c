"""Talks with `miniinfer chat` through a pseudo-terminal: editing, history, Ctrl-C and Ctrl-D.

usage: cmd_chat.py COMMAND...   (prints TAP lines without a plan, on standard output)
"""
import os
import pty
import select
import signal
import sys
import time

number = int(os.environ.get("TAP_FIRST", "1"))


def check(what, ok, seen):
    global number
    print(("ok" if ok else "not ok"), number, "-", what)
    if not ok:
        print("#", repr(seen))
    number += 1


class Terminal:
    def __init__(self, command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(command[0], command)

    def until(self, wanted, seconds=30):
        """What is shown up to and including `wanted`, or until nothing more comes."""
        seen, end = b"", time.time() + seconds
        while wanted not in seen and time.time() < end:
            if not select.select([self.fd], [], [], 0.2)[0]:
                continue
            try:
                more = os.read(self.fd, 65536)
            except OSError:
                break
            if not more:
                break
            seen += more
        else:
            if wanted not in seen and wanted != b"no such text":
                print("# waited in vain for", wanted)
        return seen.decode("utf-8", "replace")

    def type(self, text):
        os.write(self.fd, text.encode())

    def leave(self):
        """Its wait status; one that does not leave is killed, and so fails."""
        self.until(b"no such text", 20)
        for _ in range(100):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return status
            time.sleep(0.1)
        os.kill(self.pid, signal.SIGKILL)
        return os.waitpid(self.pid, 0)[1]


prompt = b"> "
t = Terminal(sys.argv[1:])
seen = t.until(prompt)
check("it greets with the model and its context", "stories" in seen and "tokens of context" in seen and " 0 tokens" not in seen, seen)
t.type("Once upon a tme\x1b[D\x1b[Di\n")  # t-m-e, the i goes in where it belongs
seen = t.until(prompt)
check("it answers, and says how fast", "little girl named Lily" in seen and "tokens/s" in seen, seen)
t.type("\x1b[A")
seen = t.until(b"Once upon a time")
check("the line before comes back with the arrow", "Once upon a time" in seen, seen)
t.type("\x03")
seen = t.until(prompt)
check("Ctrl-C drops a line", "leaves" in seen, seen)
t.type("/reset\n")
t.until(prompt)
t.type("Käse\n")
seen = t.until(b"was a big")  # the answer has begun: the line itself is echoed before it is read
t.type("\x03")
seen += t.until(prompt)
check("Ctrl-C stops an answer, and the chat goes on", "tokens/s" in seen, seen)
t.type("/help\n")
seen = t.until(b"asks the model /x.") + t.until(prompt)
check("/help lists commands", "/again" in seen and "/reset" in seen, seen)
t.type("\x04")
check("Ctrl-D leaves", t.leave() == 0, "")

t = Terminal(sys.argv[1:])
t.until(prompt)
t.type("\x1b[A\x1b[A")
seen = t.until(b"K\xc3\xa4se")
check("lines are remembered from one chat to the next", "Käse" in seen, seen)
t.type("\x03")
t.until(b"leaves")
t.type("\x03")
check("Ctrl-C twice quits, as by the signal", t.leave() == 2, "")
