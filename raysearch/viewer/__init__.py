"""Shows runs to people: a page of each run whose cells open their pairs, and a server of a store's
runs."""
