"""Access tokens: flows, refusals, what is kept, and a person's login."""
