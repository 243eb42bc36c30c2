"""Tests of `sftrl_ext.experiments`: cluster."""
