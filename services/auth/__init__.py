"""Who someone is: tenants, users, keys, passwords and tokens."""
