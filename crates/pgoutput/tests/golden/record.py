#!/usr/bin/env python3
"""Records the messages of one slot until the scenario's last one, a line each: the position in the log, and the message in hexadecimal.
When FORM is "frames" a line is a whole replication frame in hexadecimal, keepalives too.

It shares nothing with the decoder that the recordings test: it knows just enough of the frontend/backend protocol to start a replication
and to take the CopyData messages apart. The server must trust the connection.

usage: record.py HOST PORT USER DATABASE SLOT FORM OPTIONS   (OPTIONS as in START_REPLICATION)
"""
import socket
import struct
import sys

END = b"golden\0\0\0\0\x03end"  # the last message's prefix, the length of its content, and the content


def main(host, port, user, database, slot, form, options):
    if host.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{host}/.s.PGSQL.{port}")
    else:
        connection = socket.create_connection((host, int(port)))
    parameters = {
        "user": user, "database": database, "replication": "database", "client_encoding": "UTF8", "datestyle": "ISO",
        "intervalstyle": "postgres", "timezone": "UTC", "extra_float_digits": "3", "bytea_output": "hex",
        "options": "-c logical_decoding_work_mem=64kB",
    }
    body = b"".join(text.encode() + b"\0" for pair in parameters.items() for text in pair) + b"\0"
    connection.sendall(struct.pack("!ii", len(body) + 8, 196608) + body)
    stream = connection.makefile("rb")

    def receive():
        kind, length = struct.unpack("!ci", stream.read(5))
        payload = stream.read(length - 4)
        if kind == b"E":
            sys.exit(f"the server says: {payload.replace(bytes(1), b' ').decode()}")
        return kind, payload

    def send(kind, payload):
        connection.sendall(kind + struct.pack("!i", len(payload) + 4) + payload)

    while receive()[0] != b"Z":
        pass
    send(b"Q", f"START_REPLICATION SLOT {slot} LOGICAL 0/0 ({options})\0".encode())
    while receive()[0] != b"W":
        pass
    while True:
        kind, frame = receive()
        if kind != b"d":
            continue
        if form == "frames":
            print(frame.hex())
        elif frame[:1] == b"w":
            high, low = struct.unpack("!II", frame[1:9])
            print(f"{high:X}/{low:X} {frame[25:].hex()}")
        if frame[:1] == b"k" and frame[-1:] == b"\1":
            # Nothing is ever confirmed: a recorder that is run again gets everything again.
            send(b"d", b"r" + bytes(33))
        if frame[:1] == b"w" and frame.endswith(END):
            return


main(*sys.argv[1:])
