"""What the configuration says of the queue, as plain values: relay.toml's own are in relay.config.

The defaults are those of relay.toml; the command line's tests hold the two together.
"""

from pathlib import Path

import attrs

from relay.bandwidth import UNLIMITED, BandwidthLimit

# The most that objects which wait may take: a busy hospital's day or two.
DEFAULT_SPACE = 50 * 2**30
# What the database, the log and everything else on the disk need to go on.
DEFAULT_RESERVE = 2**30
# An object that waits for longer is not a short line's trouble any more.
DEFAULT_WARN_AFTER = 3600.0


@attrs.frozen(slots=True, kw_only=True)
class QueueSettings:
    """Sizes in bytes, times in seconds.

    `space`: the most that objects waiting for delivery may take. `reserve`: what stays free on the
    disk, whatever waits. `key`: the file with the spool's 32-byte key; None: the Router makes one
    in its data_dir. `bandwidth`: how fast all deliveries together may send. `warn_after`: an object
    that waits longer is warned of. `webhook`: the URL that each warning is posted to, a secret.
    """

    space: int = DEFAULT_SPACE
    reserve: int = DEFAULT_RESERVE
    key: Path | None = None
    bandwidth: BandwidthLimit = UNLIMITED
    warn_after: float = DEFAULT_WARN_AFTER
    webhook: str | None = attrs.field(default=None, repr=False)
