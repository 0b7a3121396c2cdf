"""A journal in PostgreSQL, which processes of many machines may share: leases in the place of locks, news by NOTIFY."""
