"""Suites of instances: making them ready, many at a time, and what they came to."""
