"""Choosing among patches that exist already: evidence of many kinds, and the ranker that weighs it."""
