"""
Real servers: what nobody here wrote, installed in environments of their own and started on loopback.

`tox -e real` names the folder of these environments by `AGENTRUNS_REAL`; without it nothing here is collected. A server
that cannot be installed is skipped, and the end of the session says so, in capitals.
"""
