"""Troop's version; the package's metadata are made from it, and need not be there for Troop to know it."""

VERSION = "0.1.0"
