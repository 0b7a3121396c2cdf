"""
Programs of users, for type checkers: nobody runs them, mypy strict and pyright read them (`tox -e check`).

Every `assert_type` must hold, and every line of `errors.py` must be an error, for both.
"""
