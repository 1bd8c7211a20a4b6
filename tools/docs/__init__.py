"""How the documentation's reference pages and its site are made."""
