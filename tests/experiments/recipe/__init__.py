"""Tests of `sftrl_ext.experiments`: recipe."""
