"""Figures for Prometheus: how they are described, kept and shown, in both modes.

What is counted is counted where it happens, in plain integers; a scrape reads them.
"""
