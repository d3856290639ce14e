"""Damaging what a table holds on local disk, and what `verify` says of it."""

from pathlib import Path

from ffaa_core.table.verify import verify


def table_path(table):
    return Path(table.uri)


def damage(table, glob, change):
    (path,) = sorted(table_path(table).glob(glob))[:1]
    path.write_bytes(change(path.read_bytes()))


def flip_last(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def problems_of(table):
    return [finding.text for finding in verify(table) if finding.problem]
