"""Archives that earlier commits made, and what was given to them."""
