"""Queued delivery: what is accepted here, kept in the spool, and carried to another hospital."""
