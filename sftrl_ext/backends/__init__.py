"""Rollout and evaluation engines, a verl platform for the CPU, and the entry point of the plug-in."""
