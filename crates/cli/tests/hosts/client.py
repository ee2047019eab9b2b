"""What a command says, by datagrams to an echo server, and whether an answer comes. Arguments: port, folder, what to say."""
import os, socket, sys, time

port, folder, script = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
peer = os.environ.get("PEER", "127.0.0.1")
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((peer, port))


def ask(text, wait):
    """The answer; None: there is none."""
    s.settimeout(wait)
    try:
        s.send(text)
    except PermissionError:
        return None
    end = time.monotonic() + wait
    while time.monotonic() < end:
        try:
            return s.recv(2000)
        except TimeoutError:
            return None
        except ConnectionRefusedError:
            pass
    return None


for word in script:
    what, _, text = word.partition(":")
    if what == "say":
        print(text, ask(text.encode(), 0.5), flush=True)
    elif what == "send":
        s.send(text.encode())
    elif what == "hear":
        s.settimeout(1)
        try:
            print(text, s.recv(2000), flush=True)
        except TimeoutError:
            print(text, None, flush=True)
    elif what == "pause":
        time.sleep(float(text))
    elif what == "fail":
        # no longer than it takes to start another host
        print(text, ask(text.encode(), 0.05), flush=True)
    elif what == "until":
        # the first time that it is answered again, and how often it was not
        begun, not_answered = time.monotonic(), 0
        while ask(text.encode(), 0.1) != text.encode():
            not_answered += 1
            assert time.monotonic() < begun + 10, "it is never answered again"
        print("again", not_answered > 0, flush=True)
    elif what == "mark":
        open(f"{folder}/{text}", "w").close()
        while os.path.exists(f"{folder}/{text}"):
            time.sleep(0.01)
