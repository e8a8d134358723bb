"""DICOMweb (PS3.18): the federation, and each device of it, for viewers and programs over HTTP."""
