"""The HTTP server: uvicorn's protocol in a thread of ours, with deadlines, bounds and renewed certificates.

The only room that knows uvicorn. What it serves is a bare ASGI application behind a gatekeeper.
"""
