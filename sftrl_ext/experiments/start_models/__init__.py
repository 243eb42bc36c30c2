"""Start models of a run: found, fetched, built small, or chosen among checkpoints."""
