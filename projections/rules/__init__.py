"""Which series an event feeds: built-in ones, and those of the user's rules."""
