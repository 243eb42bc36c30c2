"""Stored episodes: choice, pictures, dialogues, routes on a map, and the viewer."""
