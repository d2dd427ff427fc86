"""Events found in the log by what is asked of them."""
