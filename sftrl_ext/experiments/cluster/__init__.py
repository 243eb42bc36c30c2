"""Runs on several nodes: checks before a command, Ray, and launchers."""
