"""What runs inside a script's process; the standard library only, of any Python from 3.9 on.

The modules import each other relatively: the worker knows them by their full names, the child
process, whose interpreter need not have this package, as a package of its own.
"""
