"""Evaluation of checkpoints, and of models outside a run."""
