"""Stateful fuzz: random histories of a cache or decoder against the law, shrunk to named cases."""
