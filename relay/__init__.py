"""Relay: hospitals joined into one DICOM network over outbound HTTPS and an object store."""

from importlib.metadata import version

__version__ = version("dicom-relay")
