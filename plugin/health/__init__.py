"""Does it run, is it all there, is it right."""
