"""A small identity service in two releases: users, credentials, projects, roles and tokens."""
