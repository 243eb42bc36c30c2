"""Rehearsal of a GPU scale on a CPU: the composed commands, on toy models of the named families."""
