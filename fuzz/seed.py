#!/usr/bin/env python3
"""Makes a corpus for each fuzz target from what real servers sent: crates/pgoutput/tests/golden, crates/encoder/tests/postgres."""
import hashlib
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
MODES = {"v1": 0, "v2": 1, "v3": 2, "v4": 4}  # as the target `message` chooses its decoder
STREAM_START, STREAM_STOP = b"S", b"E"
SESSION_BYTES_MAX = 1_000


def save(target, content):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(content).hexdigest()).write_bytes(content)


def delimited(message):
    return struct.pack("!H", len(message)) + message


for recording in sorted((HERE.parent / "crates/pgoutput/tests/golden").glob("*/*.hex")):
    mode = bytes([MODES[recording.name[:2]]])
    session = mode
    block = b""  # the Stream Start that the messages at hand come after
    for line in recording.read_text().splitlines():
        bytes_ = bytes.fromhex(line.split()[-1])
        is_frame = " " not in line
        if is_frame:
            save("frame", bytes_)
            if bytes_[:1] != b"w":
                continue
        message = bytes_[25:] if is_frame else bytes_
        if not is_frame:
            save("frame", b"w" + bytes(24) + message)
        save("message", mode + block + delimited(message))
        if message[:1] == STREAM_START:
            block = delimited(message)
        elif message[:1] == STREAM_STOP:
            block = b""
        if len(session) > SESSION_BYTES_MAX:
            save("message", session)
            session = mode + block
        else:
            session += delimited(message)
    save("message", session)
save("frame", b"r" + bytes(33))

for line in (rb"1", rb"", rb"\N", "\\\\x00ff\t{\"a\\\\\\\\\",NULL}\t\u00e4".encode(), rb"\b\f\n\r\t\v\\"):
    save("copy", bytes([line.count(b"\t") + 1]) + line + b"\n")
save("copy", b"\0\n")

# As the target `value` chooses: the type's line, and the default forms or the lossless ones.
VALUES = HERE.parent / "crates/encoder/tests/postgres"
kinds = {}
for kind, line in enumerate((VALUES / "codecs.tsv").read_text().splitlines()):
    type_, modifier, *texts = line.split("\t")
    kinds[type_, modifier] = kind
    for text in texts:
        for form in range(13):
            save("value", bytes([kind, form]) + text.encode())
for form, name in enumerate(("values.tsv", "lossless.tsv")):
    for line in (VALUES / name).read_text().split("\n"):
        type_, modifier, text = line.split("\t")[:3] if line else ("", "", "")
        # The extension's type has no OID of its own.
        kind = kinds.get(("hstore" if type_ == "0" else type_, modifier))
        if kind is not None:
            save("value", bytes([kind, form]) + text.encode())
