"""The audit: who moved what, who asked for what, who changed what, and what was refused.

Kept append-only on this machine as a chain (relay.audit.entries), shown as DICOM Audit Messages
(PS3.15 §A.5), and sent to a collector by syslog over TLS where one is configured (PS3.15 §A.6).
"""
