"""Measure the distilled prompt against the baselines on the test split."""
