"""A host of callouts without the library, by docs/callout-protocol.md alone: permits everything, but what says "drop".
What says "later" it pends for a while. To a packet that says "garbage" it answers what makes no sense, and to "twice" twice."""
import json, mmap, os, select, socket, struct, sys, time

version, control, memory, requests, answers = map(int, os.environ["OPENWFP_HOST"].split(":"))
assert version == 1
control = socket.socket(fileno=control)
shared = mmap.mmap(memory, os.fstat(memory).st_size)
magic, version, slot, count = struct.unpack_from("<8sIII", shared)
assert magic == b"OPENWFP\0" and version == 1


def word(at, value=None):
    if value is None:
        return struct.unpack_from("<Q", shared, at)[0]
    struct.pack_into("<Q", shared, at, value)


def answer(action, number, garbage=False):
    global written
    answer = struct.pack("<IIQII", 1, action, number, 0, 0)
    at = 4096 + count * slot + written % count * slot
    struct.pack_into("<Q", shared, at, 1 << 60 if garbage else len(answer))
    shared[at + 8 : at + 8 + len(answer)] = answer
    written += 1
    word(320, written)
    # it may sleep: waking who is awake costs a system call, and is right on every machine
    word(448, 0)
    os.write(answers, b"x")


while "start" not in json.loads(control.recv(1 << 17)):
    pass
control.send(b'{"ready":{}}')
beat = read = written = 0
pended = []
while True:
    beat += 1
    word(64, beat)
    while pended and pended[0][0] < time.monotonic():
        answer(1, pended.pop(0)[1])
    while read < word(128):
        at = 4096 + read % count * slot
        length = word(at)
        message = shared[at + 8 : at + 8 + length]
        read += 1
        word(192, read)
        number = struct.unpack_from("<Q", message)[0]
        payload = message[664 + struct.unpack_from("<I", message, 68)[0] :]
        if payload == b"later":
            answer(4, number)
            pended.append((time.monotonic() + 0.3, number))
            continue
        answer(2 if payload.startswith(b"drop") else 1, number, payload == b"garbage")
        if payload == b"twice":
            answer(1, number)
    word(256, 1)
    if read == word(128):
        ready = select.select([requests, control], [], [], 0.1)[0]
        if control in ready and not control.recv(1 << 17):
            sys.exit()
        if requests in ready:
            os.read(requests, 4096)
    word(256, 0)
