"""Adapters: each drives one system as its users do.  One room a system."""
