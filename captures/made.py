#!/usr/bin/env python3
"""Makes captures of connections that are built here, packet by packet: made.py [FOLDER]

Needs nothing but Python. Where the real programs of `make.sh` would say the same at other places each time, these cut
their data just where a test wants them cut. The ClientHello is one of Python's own TLS.
"""
import pathlib
import socket
import ssl
import struct
import sys

CLIENT, SERVER = ("192.0.2.1", "02:00:00:00:00:01"), ("192.0.2.80", "02:00:00:00:00:50")
FIN, SYN, PSH, ACK = 1, 2, 8, 16


def checksum(data):
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


class Capture:
    def __init__(self):
        self.out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
        self.microseconds = 1_767_323_045_000_000

    def frame(self, source, destination, protocol, payload):
        addresses = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
        at = 16 if protocol == 6 else 6
        pseudo = addresses + struct.pack("!HH", protocol, len(payload))
        payload = payload[:at] + struct.pack("!H", checksum(pseudo + payload)) + payload[at + 2:]
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0x4000, 64, protocol, 0) + addresses
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        mac = lambda end: bytes.fromhex(end[1].replace(":", ""))
        frame = mac(destination) + mac(source) + b"\x08\0" + header + payload
        self.microseconds += 1000
        seconds, rest = divmod(self.microseconds, 1_000_000)
        self.out += struct.pack("<IIII", seconds, rest, len(frame), len(frame)) + frame


class Connection:
    """A TCP connection that the client opens; `send` takes who sends, and what."""

    def __init__(self, capture, port, to):
        self.capture, self.ports = capture, {CLIENT: port, SERVER: to}
        self.next = {CLIENT: 1000, SERVER: 5000}
        self.segment(CLIENT, SYN)
        self.segment(SERVER, SYN | ACK)
        self.segment(CLIENT, ACK)

    def segment(self, sender, flags, data=b""):
        peer = SERVER if sender is CLIENT else CLIENT
        acknowledged = self.next[peer] if flags & ACK else 0
        header = struct.pack("!HHIIBBHHH", self.ports[sender], self.ports[peer], self.next[sender], acknowledged,
                             5 << 4, flags, 64240, 0, 0)
        self.capture.frame(sender, peer, 6, header + data)
        self.next[sender] += len(data) + (1 if flags & (SYN | FIN) else 0)

    def send(self, sender, data):
        self.segment(sender, PSH | ACK, data)
        self.segment(SERVER if sender is CLIENT else CLIENT, ACK)

    def close(self):
        self.segment(CLIENT, FIN | ACK)
        self.segment(SERVER, FIN | ACK)
        self.segment(CLIENT, ACK)


def client_hello(name):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def tls():
    """Two names asked for: in one segment, and in three, the second cut within the name."""
    capture = Capture()
    hello = client_hello("www.example.com")
    cut = hello.index(b"www.example.com") + 6
    for port, parts in ((40001, [client_hello("www.example.org")]), (40002, [hello[:3], hello[3:cut], hello[cut:]])):
        connection = Connection(capture, port, 443)
        for part in parts:
            connection.send(CLIENT, part)
        connection.send(SERVER, b"\x15\x03\x03\0\x02\x02\x50")
        connection.close()
    return capture


def parts():
    """A text in three segments, cut within a word."""
    capture = Capture()
    connection = Connection(capture, 40003, 7000)
    for part in (b"what follows is confi", b"dential: the plan\n", b"end\n"):
        connection.send(CLIENT, part)
    connection.send(SERVER, b"received\n")
    connection.close()
    return capture


folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
for make in (tls, parts):
    (folder / f"{make.__name__}.pcap").write_bytes(make().out)
