"""Runs a plan: each step once, each check judged, every spec decided."""
