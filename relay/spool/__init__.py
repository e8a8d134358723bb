"""Custody: objects that Relay has answered for, on this machine's disk until delivered."""
