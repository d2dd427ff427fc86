"""This process's replica of the shared cache, and answers made of it."""
