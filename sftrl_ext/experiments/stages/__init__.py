"""Stages other than training: data, start model, own answers, choice of a start, evaluation, report."""
