"""The derivation of the catalogues in configs/catalogs/ that are made from published figures."""
