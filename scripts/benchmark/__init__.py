"""The benchmark behind `scripts/bench`: the same work for Relay and direct DCMTK, in one run."""
