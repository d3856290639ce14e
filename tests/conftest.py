"""Fixtures that every test may use; each topic has a module of its own in tests/fixtures."""

pytest_plugins = [
    "tests.fixtures.bundle",
    "tests.fixtures.command",
    "tests.fixtures.engine",
    "tests.fixtures.faces",
    "tests.fixtures.ceph",
    "tests.fixtures.moto",
]
