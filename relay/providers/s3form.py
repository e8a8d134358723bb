"""The settings of an S3 store as a form asks for them: the table of docs/providers.md."""

from relay.providers.settings import Form, Setting

S3_SETTINGS = (
    Setting("bucket", "The bucket's name. It must be there; Relay makes none.", required=True),
    Setting("region", "The bucket's region. Needed without an endpoint."),
    Setting(
        "endpoint",
        "https://HOST[:PORT] of another store, without the bucket. Empty: Amazon's for the region.",
    ),
    Setting(
        "credentials",
        "keys: the key pair below. role: that of the machine or container (EC2, ECS, EKS), found as"
        " Amazon's own tools do, by the AWS_… variables too.",
        Form.CHOICE,
        "keys",
        choices=("keys", "role"),
    ),
    Setting("access_key", "The key pair's first half. Needed with credentials keys.", Form.SECRET),
    Setting("secret_key", "The key pair's second half. Needed with credentials keys.", Form.SECRET),
    Setting("session_token", "The token of temporary credentials.", Form.SECRET, seldom=True),
    Setting(
        "prefix",
        "A folder in the bucket. Each Bridge needs one of its own, or a bucket.",
        default="relay",
        seldom=True,
    ),
    Setting(
        "addressing",
        "Whether URLs name the bucket in the host (virtual) or in the path (path). Empty: path with"
        " an endpoint, else virtual.",
        Form.CHOICE,
        choices=("virtual", "path"),
        seldom=True,
    ),
    Setting(
        "ca_file",
        "A PEM file of more authorities that the Bridge trusts for this store. The Routers need it"
        " as their ca_file too.",
        Form.PATH,
        seldom=True,
        label="CA file",
    ),
    Setting(
        "proxy",
        "The proxy that the Bridge itself needs to reach the store:"
        " http://[USER:PASSWORD@]HOST:PORT.",
        Form.SECRET,
        seldom=True,
    ),
    Setting(
        "bulk_delete", "false for a store without DeleteObjects.", Form.FLAG, "true", seldom=True
    ),
    Setting(
        "allow_versioning",
        "true: the check lets a bucket pass that keeps old versions.",
        Form.FLAG,
        "false",
        seldom=True,
    ),
    Setting(
        "allow_retention",
        "true: the check lets a bucket pass that has object lock with retention.",
        Form.FLAG,
        "false",
        seldom=True,
    ),
)
