"""Outputs of one commit that later ones must repeat; `python -m tests.golden.golden` writes them anew."""
