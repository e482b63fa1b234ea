"""Runs a plan: does each step once, judges each check, and decides on each spec."""
