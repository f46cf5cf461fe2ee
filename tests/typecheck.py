"""How the package's annotations are enforced under pytest."""

from beartype import BeartypeConf, beartype

# PEP 484's numeric tower: where a float is asked for, the integer 1 will do.
enforce = beartype(conf=BeartypeConf(is_pep484_tower=True))
