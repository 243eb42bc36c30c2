"""Tests of `sftrl_ext.experiments`: evaluation."""
