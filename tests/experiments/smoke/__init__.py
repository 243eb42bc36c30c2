"""Whole runs at scale smoke, from data to report."""
