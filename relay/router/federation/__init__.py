"""The federation: one AE title that answers queries and retrieves for every device there is."""
