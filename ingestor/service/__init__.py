"""The daemon: starts its parts in order, watches that they make progress, stops them in reverse."""
