"""Adapters: each drives one system as its users do.  Each system has its own folder."""
