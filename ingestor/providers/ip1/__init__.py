"""IP1: inbound SMS by webhook."""
