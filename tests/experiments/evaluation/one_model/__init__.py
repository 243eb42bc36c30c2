"""Tests of `sftrl eval`."""
