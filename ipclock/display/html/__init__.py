"""The page of `stats --html`."""
