#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints a log, a volume file or the header of a spool segment, a JSON line per record.

Written from Documentation/format/ alone and sharing nothing with the programs: if it and
they print the same for the golden files, the pages say what the programs do. Refuses
whatever the pages say is to be refused. BLAKE3 is not in Python's library, so hashes are
left out. zstd is there from Python 3.14 on; before, the program zstd is used. Nothing here
decrypts: an encrypted volume is named, with those who can open it.
"""

import json
import struct
import subprocess
import sys


class Refused(Exception):
    """A rule of the format is broken."""


def make_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = make_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def check(condition, rule):
    if not condition:
        raise Refused(rule)


def u16(data, at):
    return struct.unpack_from("<H", data, at)[0]


def u32(data, at):
    return struct.unpack_from("<I", data, at)[0]


def u64(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def i64(data, at):
    return struct.unpack_from("<q", data, at)[0]


def without(data, at):
    """The bytes with the four at `at` taken as zero."""
    return data[:at] + bytes(4) + data[at + 4:]


def up8(length):
    return (length + 7) // 8 * 8


# --- records ---------------------------------------------------------------------------

ATTRIBUTES = [
    ("mode", 0, u32), ("nlink", 4, u32), ("uid", 8, u32), ("gid", 12, u32), ("size", 16, u64),
    ("rdev_major", 24, u32), ("rdev_minor", 28, u32), ("mtime_sec", 32, i64), ("ctime_sec", 40, i64),
    ("mtime_nsec", 48, u32), ("ctime_nsec", 52, u32), ("fileattr", 56, u32), ("projid", 60, u32),
    ("valid", 64, u32), ("generation", 68, u32),
]


def attributes(data, at):
    return {name: read(data, at + offset) for name, offset, read in ATTRIBUTES}


def identity(data, at):
    return data[at:at + 32].hex()


def raw(length):
    return lambda data, at: data[at:at + length].hex()


class Payload:
    """The parts of a payload."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def part(self, length):
        check(self.at + length <= len(self.data), "parts of the payload")
        part = self.data[self.at:self.at + length]
        end = min(up8(self.at + length), len(self.data))
        check(not any(self.data[self.at + length:end]), "padding between parts")
        self.at = end
        return part

    def xattrs(self, length, count):
        entries = Payload(self.part(length))
        found = []
        for _ in range(count):
            head = entries.part(8)
            name_len, value_len = u32(head, 0), u32(head, 4)
            both = entries.part(name_len + value_len)
            found.append([both[:name_len].hex(), both[name_len:].hex()])
        entries.end()
        return found

    def end(self):
        check(self.at == len(self.data), "something behind the parts of the payload")


def no_payload(fields, body, payload):
    pass


def mount(fields, body, payload):
    fields["xattrs"] = payload.xattrs(u32(body, 120), u32(body, 124))


def create(fields, body, payload):
    fields["name"] = payload.part(u32(body, 176)).hex()
    fields["target"] = payload.part(u32(body, 180)).hex()
    fields["xattrs"] = payload.xattrs(u32(body, 184), u32(body, 188))


def one_name(fields, body, payload):
    fields["name"] = payload.part(u32(body, 176)).hex()


def rename(fields, body, payload):
    fields["old_name"] = payload.part(u32(body, 420)).hex()
    fields["new_name"] = payload.part(u32(body, 424)).hex()
    fields["whiteout_attr"] = fields["whiteout_xattrs"] = None
    if u32(body, 416) & 4:
        whiteout = payload.part(80)
        fields["whiteout_attr"] = attributes(whiteout, 0)
        fields["whiteout_xattrs"] = payload.xattrs(u32(whiteout, 72), u32(whiteout, 76))


def write(fields, body, payload):
    fields["data"] = payload.part(len(payload.data)).hex()


def set_xattr(fields, body, payload):
    fields["name"] = payload.part(u32(body, 72)).hex()
    fields["value"] = payload.part(u32(body, 76)).hex()


def remove_xattr(fields, body, payload):
    fields["name"] = payload.part(u32(body, 72)).hex()


def object_state(fields, body, payload):
    fields["target"] = payload.part(u32(body, 80)).hex()
    fields["xattrs"] = payload.xattrs(u32(body, 84), u32(body, 88))


def object_data(fields, body, payload):
    hole = fields["state_flags"] & 4
    check(len(payload.data) == (0 if hole else fields["bytes"]), "length of the range")
    fields["data"] = payload.part(len(payload.data)).hex()


def directory_state(fields, body, payload):
    fields["entries"] = []
    for _ in range(u32(body, 80)):
        entry = payload.part(40)
        fields["entries"].append({
            "object": identity(entry, 0), "mode": u32(entry, 32), "name": payload.part(u32(entry, 36)).hex(),
        })


NAMED = (184, [("parent", 0, identity), ("attr", 32, attributes), ("parent_attr", 104, attributes)], one_name)
ATTR = (80, [("attr", 0, attributes), ("asked", 72, u32)], no_payload)

# Type: length of the body, its fields, what takes the payload apart.
TYPES = {
    1: (136, [("stream", 0, raw(16)), ("lower_uuid", 16, raw(16)), ("lower_magic", 32, u64),
              ("mount_flags", 40, u64), ("root", 48, attributes)], mount),
    2: (8, [], no_payload),
    3: (0, [], None),
    4: (24, [("reason", 0, u32), ("bytes", 8, u64), ("changes", 16, u64)], no_payload),
    5: (40, [("begin", 0, u64), ("since", 8, i64), ("changes", 16, u64), ("bytes", 24, u64), ("reason", 32, u32)],
        no_payload),
    16: (192, [("parent", 0, identity), ("attr", 32, attributes), ("parent_attr", 104, attributes)], create),
    17: NAMED,
    18: NAMED,
    19: (432, [("old_parent", 0, identity), ("new_parent", 32, identity), ("other", 64, identity),
               ("whiteout", 96, identity), ("attr", 128, attributes), ("other_attr", 200, attributes),
               ("old_parent_attr", 272, attributes), ("new_parent_attr", 344, attributes),
               ("rename_flags", 416, u32)], rename),
    20: (0, [], no_payload),
    21: (32, [("old", 0, identity)], no_payload),
    32: (80, [("offset", 0, u64), ("attr", 8, attributes)], write),
    33: ATTR,
    34: (96, [("mode", 0, u32), ("offset", 8, u64), ("bytes", 16, u64), ("attr", 24, attributes)], no_payload),
    48: ATTR,
    49: (80, [("attr", 0, attributes)], set_xattr),
    50: (80, [("attr", 0, attributes)], remove_xattr),
    51: ATTR,
    64: (96, [("checkpoint", 0, u64), ("attr", 8, attributes)], object_state),
    65: (104, [("checkpoint", 0, u64), ("offset", 8, u64), ("bytes", 16, u64), ("attr", 24, attributes),
               ("state_flags", 96, u32)], object_data),
    66: (96, [("checkpoint", 0, u64), ("attr", 8, attributes), ("state_flags", 84, u32)], directory_state),
    80: (16, [("checkpoint_flags", 0, u64)], no_payload),
    81: (32, [("checkpoint", 0, u64), ("objects", 8, u64), ("bytes", 16, u64)], no_payload),
}


def record(data, lsn):
    """The record that begins `data`: its fields and its length."""
    check(len(data) >= 96, "cut short")
    check(data[:4] == b"REEL", "magic of the record")
    check(u16(data, 4) == 1, "version of the record")
    length, head_length, payload_length = u32(data, 8), u32(data, 12), u32(data, 36)
    check(length % 8 == 0 and 104 <= length <= 2 << 20, "length")
    check(head_length % 8 == 0 and 96 <= head_length <= length - 8, "head length")
    check(head_length + up8(payload_length) + 8 == length, "payload length")
    check(len(data) >= length, "cut short")
    data = data[:length]
    head = data[:head_length]
    check(crc32c(without(head, 44)) == u32(data, 44), "checksum of the head")
    flags, kind = u32(data, 32), u16(data, 6)
    check(flags & ~7 == 0, "flags")
    known = TYPES.get(kind)
    if known is None:
        check(flags & 1, "type that must not be skipped")
    else:
        check(head_length == 96 + known[0], "length of the body")
    check(u64(data, 16) == lsn, "LSN")
    check(u32(data, length - 8) == length and data[-4:] == b"LEER", "trailer of the record")
    payload = data[head_length:head_length + payload_length]
    check(crc32c(payload) == u32(data, 40), "checksum of the payload")
    check(not any(data[head_length + payload_length:length - 8]), "padding")
    fields = {
        "lsn": lsn, "length": length, "type": kind, "flags": flags, "time": i64(data, 24),
        "epoch": u64(data, 48), "uid": u32(data, 56), "object": identity(data, 64),
    }
    if known is None:
        fields["skipped"] = True
        return fields, length
    body = head[96:]
    for name, offset, read in known[1]:
        fields[name] = read(body, offset)
    if known[2] is not None:
        parts = Payload(payload)
        known[2](fields, body, parts)
        parts.end()
    return fields, length


def records(log):
    at = 0
    while at < len(log):
        fields, length = record(log[at:], at)
        yield fields
        at += length
    # The same boundaries, from the other end.
    while at > 0:
        check(log[at - 4:at] == b"LEER", "backward")
        at -= u32(log, at - 8)
        check(log[at:at + 4] == b"REEL", "backward")


# --- volumes ---------------------------------------------------------------------------

def decompress(frame):
    try:
        from compression import zstd
        return zstd.decompress(frame)
    except ImportError:
        pass
    try:
        done = subprocess.run(["zstd", "-dcq"], input=frame, capture_output=True, check=False)
    except OSError:
        sys.exit("compressed: this Python has no zstd, and the program zstd is not there")
    check(done.returncode == 0, "a payload that cannot be decompressed")
    return done.stdout


def locked(key, block, size):
    """Ends: the volume is encrypted. `block` is the one behind the volume start."""
    text = f"encrypted with key {key[:8].hex()}"
    if len(block) == size and u32(block, 8) == 5:
        plain = u32(block, 92)
        body = block[128:128 + plain]
        check(u32(block, 20) == plain + 40 and body[:32] == key, "volume key")
        wrapped, recipients = u32(body, 32), u32(body, 36)
        check(48 + wrapped + recipients == plain, "parts of the volume key")
        text += " for " + ", ".join(body[48 + wrapped:].decode().split())
    raise Refused(text)



def volume(data):
    """The bytes of the log on a volume file that is the first of its set."""
    label = data[:4096]
    check(len(label) == 4096 and label[:8] == b"REELVOL\0", "magic of the label")
    check(u32(label, 8) == 1, "version of the volume")
    check(crc32c(without(label, 12)) == u32(label, 12), "checksum of the label")
    features = u64(label, 16)
    check(features & ~3 == 0, "features that are not known")
    size = u32(label, 64)
    check(4096 <= size <= 8 << 20, "block size")
    log = b""
    last_number = -1
    segment_size = None
    for at in range(4096, len(data), size):
        block = data[at:at + size]
        check(len(block) == size and block[:8] == b"REELBLK\0", "magic of a block")
        check(crc32c(without(block, 16)) == u32(block, 16), "checksum of a block")
        check(u32(block, 12) & ~1 == 0, "flags of a block")
        check(block[32:48] == label[32:48], "a block of another volume")
        number = u64(block, 24)
        check(number > last_number, "number of a block")
        last_number = number
        kind, length = u32(block, 8), u32(block, 20)
        start, end, first = u64(block, 64), u64(block, 72), u32(block, 84)
        payload = block[128:128 + length]
        check(len(payload) == length, "payload of a block")
        if kind not in (1, 2, 3, 4, 5):
            check(u32(block, 12) & 1, "kind of a block")
            continue
        codec, plain = u32(block, 88), u32(block, 92)
        if kind == 1 and payload[144:176] != bytes(32):
            check(codec == 4 and length == 240 + 40 and features & 2, "start of an encrypted volume")
            locked(payload[144:176], data[at + size:at + 2 * size], size)
        check(codec == 0 or (codec == 1 and kind == 2 and features & 1), "codec")
        if codec == 0:
            check(plain == length, "length when decoded")
        else:
            check(0 < plain <= min(16 * size, 32 << 20), "length when decoded")
            payload = decompress(payload)
            check(len(payload) == plain, "length when decoded")
            length = plain
        if kind == 1:
            check(number == 0 and length == 240, "volume start")
            check(u64(payload, 0) == 1 and u64(payload, 8) == 0, "not the first volume")
            segment_size = u64(payload, 16)
        else:
            check(segment_size is not None, "no volume start")
        if kind == 2:
            check(end - start == length and length > 0, "range of a block")
            check(start // segment_size == (end - 1) // segment_size, "a block over the end of a segment")
            check(first == 0xFFFFFFFF or first < length, "first record")
            if first != 0xFFFFFFFF:
                check(payload[first:first + 4] == b"REEL"[:length - first], "first record")
            check(start <= len(log), f"LSN {len(log)} to {start} is missing")
            log += payload[len(log) - start:]
        else:
            check(start == end, "range of a block")
            check(length == {1: 240, 3: 96, 4: 56}.get(kind), "payload of a block")
        if kind == 4:
            check(u64(payload, 0) == len(log), "last LSN of the trailer")
            break
    return log


# --- spool segments --------------------------------------------------------------------

def segment(data):
    header = data[:4096]
    check(len(header) == 4096, "cut short")
    check(u32(header, 8) == 1, "version of the segment")
    check(crc32c(without(header, 12)) == u32(header, 12), "checksum of the segment header")
    number, size, first = u64(header, 32), u64(header, 40), u64(header, 48)
    check(first >= number * size, "first record of the segment")
    return {"segment": number, "size": size, "first_record": first, "created": i64(header, 56)}


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: readlog.py FILE")
    with open(sys.argv[1], "rb") as file:
        data = file.read()
    try:
        if data[:8] == b"REELSEG\0":
            print(json.dumps(segment(data), sort_keys=True, separators=(",", ":")))
            return
        log = volume(data) if data[:8] == b"REELVOL\0" else data
        for fields in records(log):
            print(json.dumps(fields, sort_keys=True, separators=(",", ":")))
    except Refused as rule:
        sys.exit(f"{sys.argv[1]}: refused: {rule}")


if __name__ == "__main__":
    main()
