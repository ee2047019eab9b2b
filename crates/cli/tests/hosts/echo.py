"""Sends datagrams back, and writes down what came. Arguments: address, port, file."""
import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[2])))
s.settimeout(60)
open(sys.argv[3] + ".ready", "w").close()
while True:
    data, peer = s.recvfrom(2000)
    with open(sys.argv[3], "ab") as file:
        file.write(data + b"\n")
    s.sendto(data, peer)
