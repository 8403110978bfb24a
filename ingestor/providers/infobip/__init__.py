"""Infobip: inbound SMS by webhook."""
