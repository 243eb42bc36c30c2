"""Stages other than training: data, start model, sampled rows, choice of a start, evaluation, report."""
