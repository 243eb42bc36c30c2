"""Tests of `sftrl_ext.experiments`: start_models."""
