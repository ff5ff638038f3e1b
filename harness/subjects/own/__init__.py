"""This package's own schemes as subjects."""
