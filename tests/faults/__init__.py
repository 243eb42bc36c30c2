"""Hostile input, faults and load: seeded, with counts from environment variables and printed by `-s`."""
