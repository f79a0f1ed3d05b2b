"""The measurements, a module each; `bench/catalogue.py` lists them."""
