"""`ingestor demo`: a throw-away mailbox over real IMAP, the real daemon on it, and the archive it fills."""
