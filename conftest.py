"""Shared by the tests of the whole tree."""

pytest_plugins = ["pytester"]
